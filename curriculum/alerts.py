"""An alert: one line in the log, and a JSON body posted to a webhook where one is set."""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from typing import Any

from curriculum.errors import UserError

_LOG = logging.getLogger("curriculum.alerts")


def send(alert: dict[str, Any], webhook: str = "", *, attempts: int = 3, pause: float = 1.0, timeout: float = 10.0) -> None:
    """Log ``alert`` (its ``text`` is the line), and post it as JSON to ``webhook`` if there is one.

    Raises:
        UserError: the webhook is no http address, or took it in none of ``attempts``.
    """
    _LOG.warning("%s", alert["text"])
    if not webhook:
        return
    if not webhook.startswith(("http://", "https://")):
        raise UserError("the webhook is no http address; correct CURRICULUM_WEBHOOK")
    body = json.dumps(alert).encode()
    request = urllib.request.Request(webhook, data=body, headers={"Content-Type": "application/json"}, method="POST")
    for attempt in range(1, attempts + 1):
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                return
        except OSError as error:  # refused, timed out, or an HTTP status that is an error
            if attempt == attempts:
                said = error.code if isinstance(error, urllib.error.HTTPError) else error
                raise UserError(f"the webhook took the alert in none of {attempts} attempts ({said}); correct CURRICULUM_WEBHOOK") from error
            time.sleep(pause * attempt)
