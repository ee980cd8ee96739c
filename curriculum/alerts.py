"""An alert: one line in the log, and a JSON body posted to a webhook where one is set."""

from __future__ import annotations

import logging
from typing import Any

from curriculum.errors import UserError

_LOG = logging.getLogger("curriculum.alerts")


def send(alert: dict[str, Any], webhook: str = "", *, attempts: int = 3, pause: float = 1.0, timeout: float = 10.0) -> None:
    """Log ``alert`` (its ``text`` is the line), and post it as JSON to ``webhook`` if there is one.

    Raises:
        UserError: the webhook is no http address, or took it in none of ``attempts``. Its address, a secret, is not in the message.
    """
    _LOG.warning("%s", alert["text"])
    if not webhook:
        return
    if not webhook.startswith(("http://", "https://")):
        raise UserError("the webhook is no http address; correct CURRICULUM_WEBHOOK")
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    again = Retry(total=attempts - 1, backoff_factor=pause, status_forcelist=range(500, 600), allowed_methods=None, raise_on_status=False)
    with requests.Session() as session:
        session.mount(webhook, HTTPAdapter(max_retries=again))
        try:
            session.post(webhook, json=alert, timeout=timeout).raise_for_status()
        except requests.RequestException as error:
            said = type(error).__name__ if error.response is None else error.response.status_code
            raise UserError(f"the webhook did not take the alert in {attempts} attempts ({said}); correct CURRICULUM_WEBHOOK") from None
