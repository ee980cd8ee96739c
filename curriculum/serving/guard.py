"""What stands before the routes: the host, the key, the rate and the pace of a body, and the headers of every answer."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from starlette.exceptions import HTTPException

from curriculum.serving.settings import ServingSettings

Scope, Message = dict[str, Any], dict[str, Any]
OPEN = frozenset({"/", "/healthz", "/openapi.json"})  # asked without a key and without a limit
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
_ADDRESSES = 10_000
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store"))


class RateLimit:
    """A bucket of ``per_minute`` requests for each address, filled evenly. Addresses not seen for longest are forgotten."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._clock = float(per_minute), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Take one request out of the bucket: 0, or where it is empty the seconds until there is one."""
        if not self._size:
            return 0.0
        now = self._clock()
        level, at = self._buckets.pop(address, (self._size, now))
        level = min(self._size, level + (now - at) * self._size / 60)
        allowed = level >= 1
        self._buckets[address] = (level - 1 if allowed else level, now)
        while len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - level) * 60 / self._size


class Guard:
    """ASGI middleware. ``key`` "" asks for none; ``hosts`` empty takes any Host header.

    A page of another site that a browser was made to resolve to this machine (DNS rebinding) names its own host, and is refused.
    """

    def __init__(self, app: Any, *, key: str, hosts: Iterable[str], settings: ServingSettings) -> None:
        self.app = app
        self._key, self._hosts, self._rate = key.encode(), frozenset(hosts), RateLimit(settings.requests_per_minute)
        self._bytes, self._seconds = settings.max_body_bytes, settings.body_seconds

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        refused = self._refusal(scope)
        if refused:
            await _refuse(answer, *refused)
        else:
            await self.app(scope, _paced(receive, self._seconds), answer)

    def _refusal(self, scope: Scope) -> tuple[int, str, dict[str, str]] | None:
        """Status, message and headers where the request may not go on."""
        headers = dict(scope["headers"])
        if self._hosts and _host(headers.get(b"host", b"").decode("latin-1")) not in self._hosts:
            return 421, "this host name is not served here", {}
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._bytes:  # a body that does not say its length is counted as it arrives
            return 413, "Content Too Large", {}
        if scope["path"] in OPEN:
            return None
        if self._key and not hmac.compare_digest(_given_key(headers), self._key):
            return 401, "give the service's key in the header X-API-Key", {"WWW-Authenticate": "ApiKey"}
        wait = self._rate.wait((scope.get("client") or ("",))[0])
        if wait:
            return 429, "too many requests: wait as long as Retry-After says", {"Retry-After": str(int(wait) + 1)}
        return None


def _paced(receive: Any, seconds: float) -> Any:
    """``receive`` that gives up with 408 where the body takes longer than ``seconds``; past the body it waits as long as it takes."""
    end, more = time.monotonic() + seconds, True

    async def paced() -> Message:
        nonlocal more
        if not more:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {seconds:g} seconds") from None
        more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    return paced


def _host(header: str) -> str:
    """The host of a Host header, without its port."""
    return header[: header.find("]") + 1] if header.startswith("[") else header.partition(":")[0]


def _given_key(headers: dict[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return headers.get(b"x-api-key") or (token if scheme.lower() == b"bearer" else b"")


async def _refuse(send: Any, status: int, detail: str, headers: dict[str, str]) -> None:
    body = json.dumps({"detail": detail}).encode()
    named = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
