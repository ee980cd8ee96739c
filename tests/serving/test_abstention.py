"""The service gives no answer below the promoted threshold where that was calibrated for what answers, and says why; elsewhere it says why not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from curriculum.rag.calibrated import answered_by, write_calibrated
from curriculum.rag.settings import RagSettings
from curriculum.results import Metric, StudyResult
from curriculum.serving.schemas import Answered, Health
from curriculum.storage import ArtifactStore
from tests.serving.conftest import Told
from tests.serving.small import events, publish
from tests.serving.test_tuned_search import TUNED
from tests.serving.test_tuned_search import promote as promote_search

Make = Callable[..., TestClient]
QUESTION, SURE, UNSURE = "When was the red tower built?", "The red tower was built in 1889.", "It is 412 metres high."
MARK = {"serving": {"unsupported": "mark"}}  # so that the verifier's own threshold withholds nothing
PARTS = ("promoted_index", "promoted_reranker", "promoted_verifier")


def promote(store: ArtifactStore, rag: RagSettings, threshold: float = 0.7, **other: str) -> str:
    """Promote a threshold calibrated for what ``store`` serves under ``rag``, but for ``other``; the promoted version's name."""
    versions = {name: manifest.version for name in PARTS if (manifest := store.manifest(name))}
    calibrated_for = answered_by(rag, versions, lambda: "written") | other
    settings = {"target_risk": 0.2, "level": 0.95, "calibrated_for": calibrated_for}
    study, facts = StudyResult(study="abstention_study", metrics=[Metric(name="threshold", value=threshold)], settings=settings), {}
    made = publish(store, "abstention_threshold", f"t{threshold}", lambda out: facts.update(write_calibrated(study, out).facts))
    return store.refer("promoted_abstention", made, facts).version


def ask(web: TestClient) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The sentences and the end of an answer."""
    named = events(web.post("/ask", json={"question": QUESTION}).text)
    assert named[-1][0] == "done"
    Answered.model_validate(named[-1][1])
    return [data for name, data in named if name == "sentence"], named[-1][1]


def test_below_the_promoted_threshold_nothing_is_given_out_and_above_it_all_is(client: Make, store: ArtifactStore, told: Told) -> None:
    web = client(store=store, **MARK)
    told.pieces = [UNSURE]
    said, done = ask(web)
    assert (said[0]["text"], done["answer"], done["abstained"], done["reason"], done["threshold"]) == (UNSURE, UNSURE, False, None, None)
    assert web.get("/healthz").json()["abstention"] == {"threshold": None, "target_risk": None, "not_applied": ""}

    version = promote(store, web.service.rag)
    assert web.service.served.refresh()
    health = web.get("/healthz").json()
    assert health["versions"]["promoted_abstention"] == version
    assert Health.model_validate(health).abstention.model_dump() == {"threshold": 0.7, "target_risk": 0.2, "not_applied": ""}
    said, done = ask(web)
    assert [(s["text"], s["withheld"], s["citations"]) for s in said] == [("", True, [])]
    assert (done["answer"], done["abstained"], done["reason"], done["threshold"]) == ("", True, "below_threshold", 0.7)
    assert 0 <= done["support"] < 0.7 and done["support"] == said[0]["support"] and done["versions"]["promoted_abstention"] == version
    told.pieces = [SURE]
    said, done = ask(web)
    assert (said[0]["text"], done["answer"], done["abstained"], done["reason"]) == (SURE, SURE, False, None) and done["support"] >= 0.7
    assert done["citations"] == ["project/tower#0"]


def test_an_answer_is_as_sure_as_its_weakest_sentence(client: Make, store: ArtifactStore, told: Told) -> None:
    web = client(store=store, **MARK)
    told.pieces = [f"{SURE} {UNSURE}"]
    assert [s["withheld"] for s in ask(web)[0]] == [False, False]
    promote(store, web.service.rag)
    assert web.service.served.refresh()
    said, done = ask(web)
    assert [(s["text"], s["supported"], s["citations"]) for s in said] == [("", True, []), ("", False, [])]
    assert done["reason"] == "below_threshold" and done["citations"] == [] and done["withheld"] == 2
    assert done["support"] == min(s["support"] for s in said) < 0.7
    assert 'curriculum_answers_total{outcome="abstained"} 1.0' in web.get("/metrics").text


def test_the_other_reasons_are_told_apart(client: Make, told: Told) -> None:
    web = client()
    told.pieces = ["I don't know."]
    assert [ask(web)[1][name] for name in ("abstained", "reason", "support")] == [True, "no_draft", None]
    told.pieces = [UNSURE]
    done = ask(web)[1]
    assert (done["abstained"], done["reason"]) == (True, "unsupported") and done["support"] < web.service.served.bundle.threshold


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"promoted_reader": "qa_reader-old"}, "calibrated for promoted_reader qa_reader-old, and the service has none"),
        ({"promoted_verifier": "support_verifier-v0"}, "calibrated for promoted_verifier support_verifier-v0, and the service has support_verifier-v1"),
        ({"promoted_index": "search_index-i0"}, "calibrated for promoted_index search_index-i0, and the service has search_index-i1"),
        ({"contexts": "5"}, "calibrated for contexts 5, and the service has 2"),
        ({"generator": "another"}, "calibrated for generator another, and the service has written"),
    ],
)
def test_a_threshold_calibrated_for_something_else_is_not_applied(
    client: Make, store: ArtifactStore, told: Told, caplog: pytest.LogCaptureFixture, other: dict[str, str], said: str
) -> None:
    promote(store, client().service.rag, **other)
    with caplog.at_level(logging.WARNING):
        web = client(store=store, **MARK)
    health = web.get("/healthz").json()
    assert "promoted_abstention" not in health["versions"] and health["abstention"]["threshold"] is None
    assert said in health["abstention"]["not_applied"] and sum(said in record.getMessage() for record in caplog.records) == 1
    told.pieces = [UNSURE]
    assert ask(web)[1]["answer"] == UNSURE


def test_a_tuned_search_finds_other_passages_than_it_was_calibrated_on(client: Make, store: ArtifactStore) -> None:
    web = client(store=store)
    promote(store, web.service.rag)
    assert web.service.served.refresh() and web.service.served.bundle.abstention.threshold == 0.7
    version = promote_search(store, "s1", TUNED)
    assert web.service.served.refresh()
    assert f"calibrated for search profile, and the service has {version}" in web.get("/healthz").json()["abstention"]["not_applied"]


def test_it_can_be_switched_off(client: Make, store: ArtifactStore, told: Told) -> None:
    promote(store, client().service.rag)
    web = client(store=store, serving={"unsupported": "mark", "abstain": False})
    health = web.get("/healthz").json()
    assert "promoted_abstention" not in health["versions"] and health["abstention"]["not_applied"] == ""
    told.pieces = [UNSURE]
    assert ask(web)[1]["answer"] == UNSURE


def test_what_may_be_said_is_in_the_schema(client: Make) -> None:
    schemas = client().get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Abstention"]["properties"]) == {"threshold", "target_risk", "not_applied"}
    assert "abstention" in schemas["Health"]["required"]
