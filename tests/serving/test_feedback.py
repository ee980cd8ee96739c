"""Feedback is kept with the versions that answered, survives a kill in the middle of a line, and becomes an annotation round."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from curriculum.serving.feedback import FILE, FeedbackStore, annotation_items
from curriculum.serving.schemas import Feedback

Make = Callable[..., TestClient]


def test_feedback_is_stored_with_the_query_and_the_versions(client: Make, tmp_path: Path) -> None:
    web = client()
    found = web.post("/search", json={"query": "red tower"}).json()
    best = found["passages"][0]["passage_id"]
    given = {"request_id": found["request_id"], "verdict": "unhelpful", "passage_id": best, "comment": "no\nnot \u2028 this"}
    kept = web.post("/feedback", json=given)
    assert kept.status_code == 201 and kept.json()["versions"] == found["versions"]
    path = tmp_path / "feedback" / FILE
    (line,) = path.read_bytes().splitlines()
    stored = json.loads(line)
    assert stored["query"] == "red tower" and stored["passage_id"] == best and stored["comment"] == given["comment"]
    assert stored["text"] == found["passages"][0]["text"] and best in stored["passages"]
    assert stored["versions"] == found["versions"] and stored["feedback_id"] == kept.json()["feedback_id"] and stored["kind"] == "search"
    assert annotation_items(path.parent)["comments"].tolist() == [[given["comment"]]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_not_answered_cannot_be_judged(client: Make, tmp_path: Path) -> None:
    web = client(serving={"kept_answers": 1})
    first, second = (web.post("/search", json={"query": q}).json() for q in ("red", "green"))
    for given in (
        {"request_id": "made-up", "verdict": "helpful"}, {"request_id": first["request_id"], "verdict": "helpful"},  # forgotten by now
        {"request_id": second["request_id"], "verdict": "helpful", "passage_id": "project/none#0"},
    ):  # fmt: skip
        assert web.post("/feedback", json=given).status_code == 404
    assert web.post("/feedback", json={"request_id": second["request_id"], "verdict": "wrong"}).status_code == 422
    assert not (tmp_path / "feedback").exists()


def answered(folder: Path) -> FeedbackStore:
    store = FeedbackStore(folder, kept=10)
    for name, query in (("one", "red"), ("two", "green")):
        store.remember(name, {"kind": "ask", "query": query, "passages": {"a": "Text a.", "b": "Text b."}, "answer": f"It is {query}.", "versions": {"promoted_index": "i1"}})
    return store


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    store = answered(tmp_path)
    store.store(Feedback(request_id="one", verdict="helpful"))
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])  # a kill in the middle of the next line
    store.store(Feedback(request_id="two", verdict="helpful"))
    assert annotation_items(tmp_path)["query"].tolist() == ["green", "red"]


def test_an_annotation_round_asks_first_what_people_disagree_on(tmp_path: Path) -> None:
    store = answered(tmp_path)
    for request, verdict, passage in (
        ("one", "helpful", "a"), ("one", "unhelpful", "a"), ("two", "unhelpful", "b"), ("two", "unhelpful", "b"), ("one", "helpful", None),
    ):  # fmt: skip
        assert store.store(Feedback(request_id=request, verdict=verdict, passage_id=passage, comment=verdict[:2])) is not None
    items = annotation_items(tmp_path)
    assert items[["query", "passage_id", "helpful", "unhelpful"]].values.tolist() == [["red", "a", 1, 1], ["green", "b", 0, 2], ["red", "", 1, 0]]
    assert items["answer"].tolist() == ["", "", "It is red."] and items["comments"].tolist() == [["he", "un"], ["un", "un"], ["he"]]
    assert items["text"].tolist() == ["Text a.", "Text b.", ""]
    items.to_parquet(tmp_path / "round.parquet")
    assert annotation_items(tmp_path / "none").empty
