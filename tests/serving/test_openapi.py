"""Schemathesis on the service's own OpenAPI, over real HTTP: what the description allows is answered, what it does not is refused as described."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup, ServerError
from starlette.testclient import TestClient

from curriculum.serving.app import create_app
from tests.serving.conftest import Told
from tests.serving.small import listening

Make = Callable[..., TestClient]
EXAMPLES = settings(
    max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)


@pytest.fixture
def schema(client: Make, told: Told) -> Iterator[Any]:
    told.pieces = ["It has 7 floors."]
    with listening(create_app(client(serving={"requests_per_minute": 0}).service)) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def statuses(operation: Any, mode: GenerationMode, prepare: Callable[[Any], None] = lambda case: None) -> set[int]:
    """What an operation answers generated requests with, each answer held against the description. ``prepare`` may change a request."""
    seen: set[int] = set()

    @EXAMPLES
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        prepare(case)
        response = case.call(timeout=20)
        case.validate_response(response)
        seen.add(response.status_code)

    check()
    return seen


def probe(schema: Any, mode: GenerationMode) -> dict[str, set[int]]:
    """The statuses of every operation; those that take nothing cannot be asked wrongly."""
    operations = [found.ok() for found in schema.get_all_operations()]
    closed = {"GET /healthz", "GET /metrics"} if mode is GenerationMode.NEGATIVE else set()
    return {operation.label: statuses(operation, mode) for operation in operations if operation.label not in closed}


def test_what_the_description_allows_is_answered_as_described(schema: Any) -> None:
    seen = probe(schema, GenerationMode.POSITIVE)
    assert set(seen) == {"GET /search", "POST /search", "GET /ask", "POST /ask", "POST /feedback", "GET /metrics", "GET /healthz"}
    assert all(200 in found for label, found in seen.items() if label != "POST /feedback") and seen["POST /feedback"] == {404}


def test_feedback_on_an_answer_that_was_given_is_kept_as_described(client: Make, told: Told) -> None:
    """A generated id names no answer: here it is the one of a search that was made."""
    service = client(serving={"requests_per_minute": 0}).service
    with listening(create_app(service)) as url:
        known = httpx.post(f"{url}/search", json={"query": "tower"}, timeout=20).json()

        def named(case: Any) -> None:
            case.body["request_id"] = known["request_id"]

        (feedback,) = (found.ok() for found in schemathesis.openapi.from_url(f"{url}/openapi.json").include(path="/feedback").get_all_operations())
        assert 201 in statuses(feedback, GenerationMode.POSITIVE, named)
        assert 404 in statuses(feedback, GenerationMode.POSITIVE)  # the generated id names none


def test_what_the_description_does_not_allow_is_refused(schema: Any) -> None:
    seen = probe(schema, GenerationMode.NEGATIVE)
    assert set(seen) == {"GET /search", "POST /search", "GET /ask", "POST /ask", "POST /feedback"}
    assert all(422 in found and max(found) < 500 for found in seen.values())


def test_an_answer_that_breaks_is_noticed(client: Make) -> None:
    """The probe can fail."""
    service = client(serving={"requests_per_minute": 0}).service
    service.served.swaps = "many"
    with listening(create_app(service)) as url, pytest.raises(FailureGroup) as raised:
        probe(schemathesis.openapi.from_url(f"{url}/openapi.json").include(path="/healthz"), GenerationMode.POSITIVE)
    assert any(isinstance(failure, ServerError) for failure in raised.value.exceptions)
