"""What Prometheus is told. Labels are of fixed sets: no query, address or key is among them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = {"registry": self.registry}
        self._requests = Counter("curriculum_requests", "Requests by path, method and status.", ["path", "method", "status"], **of)
        self._seconds = Histogram("curriculum_request_seconds", "Seconds of a request, to its last byte.", ["path"], buckets=_SECONDS, **of)
        self._stages = Histogram("curriculum_stage_seconds", "Seconds of a stage of search or answer.", ["stage"], buckets=_SECONDS, **of)
        self._flight = Gauge("curriculum_requests_in_flight", "Requests that have begun and not ended.", **of)
        self._answers = Counter("curriculum_answers", "Answers by what was given out.", ["outcome"], **of)
        self._sentences = Counter("curriculum_sentences", "Sentences of drafts by the verifier's verdict.", ["supported"], **of)
        self._feedback = Counter("curriculum_feedback", "Feedback by verdict.", ["verdict"], **of)
        self._versions = Gauge("curriculum_served_version", "1 for the version in force.", ["asset", "version"], **of)
        self._swaps = Gauge("curriculum_swaps", "How often a newer version was put in force.", **of)
        self._problem = Gauge("curriculum_swap_problem", "1 while a newer version cannot be loaded.", **of)

    def stages(self, milliseconds: Mapping[str, float]) -> None:
        """Count the times of the stages."""
        for stage, value in milliseconds.items():
            self._stages.labels(stage).observe(value / 1000)

    def answered(self, supported: int, unsupported: int, *, abstained: bool) -> None:
        """Count an answer and its sentences."""
        self._answers.labels("abstained" if abstained else "partly supported" if unsupported else "supported").inc()
        self._sentences.labels("yes").inc(supported)
        self._sentences.labels("no").inc(unsupported)

    def feedback(self, verdict: str) -> None:
        """Count feedback."""
        self._feedback.labels(verdict).inc()

    def text(self, versions: Mapping[str, str], swaps: int, problem: str) -> bytes:
        """Everything in the exposition format, with what is served now."""
        self._versions.clear()
        for asset, version in versions.items():
            self._versions.labels(asset, version).set(1)
        self._swaps.set(swaps)
        self._problem.set(bool(problem))
        return generate_latest(self.registry)

    def watched(self, app: Any, paths: Collection[str]) -> Any:
        """``app`` (ASGI) with its requests counted; what is none of ``paths`` is counted as "other"."""

        async def counted(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            path, status = scope["path"] if scope["path"] in paths else "other", "none"

            async def noted(message: dict[str, Any]) -> None:
                nonlocal status
                status = str(message["status"]) if message["type"] == "http.response.start" else status
                await send(message)

            begun = time.perf_counter()
            with self._flight.track_inprogress():
                try:
                    await app(scope, receive, noted)
                finally:
                    self._requests.labels(path, scope["method"] if scope["method"] in _METHODS else "other", status).inc()
                    self._seconds.labels(path).observe(time.perf_counter() - begun)

        return counted
