"""The load test counts what was answered and everything that was not."""

from __future__ import annotations

from collections.abc import Callable

from starlette.testclient import TestClient

from benchmarks.serve_load import hold
from curriculum.serving.app import create_app
from tests.serving.conftest import Told
from tests.serving.small import listening

Make = Callable[..., TestClient]


def test_what_is_answered_and_what_is_refused_are_counted(client: Make, told: Told) -> None:
    told.pieces = ["It has 7 floors."]
    with listening(create_app(client(serving={"requests_per_minute": 1}).service)) as url:
        held = [hold(url, path, 0.3, 2, ["How many floors?"]) for path in ("search", "ask")]
    assert held[0]["answered"] == 1 and set(held[0]["failures"]) == {"429"} and held[0]["failed"] > 0 and held[0]["p95_ms"] >= held[0]["p50_ms"] > 0
    assert held[1]["answered"] == 0 and held[1]["failed"] > 0 and "p50_ms" not in held[1]
    assert held[0]["swaps"] == 0 and held[0]["versions"]["promoted_index"] == "search_index-i1"
