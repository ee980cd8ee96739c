"""Alerts: where a failed run or a failed check is reported."""

from typing import Any

import dagster as dg

from curriculum.alerts import send


class Alerts(dg.ConfigurableResource):
    """Writes alerts to the log, and posts them to ``webhook`` (the secret CURRICULUM_WEBHOOK) where it is set."""

    webhook: str = ""

    def send(self, alert: dict[str, Any]) -> None:
        """One alert; see :func:`curriculum.alerts.send`."""
        send(alert, self.webhook)
