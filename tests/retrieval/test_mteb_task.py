"""mteb's tasks become collections, and what cannot be had is said."""

from __future__ import annotations

import pandas as pd
import pytest

from curriculum.errors import SourceError
from curriculum.retrieval.mteb_task import KnownHits, load_task, mteb_scores, sets_of, task_of
from tests.retrieval.small import table

QUERIES = pd.DataFrame({"query_id": ["q1", "q2"], "query": ["one?", "two?"], "relevant_ids": [["a"], ["b", "c"]], "grades": [[2], [2, 1]]})


def test_an_mteb_task_becomes_a_set() -> None:
    task = task_of("t", table({"a": "first", "b": "second", "c": "third"}, title="T"), QUERIES)
    task.load_data()
    (data,) = sets_of(task)
    assert data.name == "Local-t" and list(data.corpus["doc_id"]) == ["a", "b", "c"] and set(data.corpus["title"]) == {"T"}
    assert dict(zip(data.queries["query_id"], data.queries["text"], strict=True)) == {"q1": "one?", "q2": "two?"}
    assert data.splits == ["test"] and sorted(data.qrels["grade"]) == [1, 2, 2]


def test_mteb_scores_known_hits() -> None:
    task = task_of("t", table({"a": "first", "b": "second", "c": "third"}), QUERIES)
    perfect = KnownHits("perfect", {"q1": {"a": 1.0}, "q2": {"b": 2.0, "c": 1.0}})
    assert mteb_scores(perfect, task)["ndcg_at_10"] == 1.0
    half = KnownHits("half", {"q1": {"a": 1.0}, "q2": {"a": 1.0}})
    assert mteb_scores(half, task)["ndcg_at_10"] == 0.5


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("NoSuchTask", "mteb has no task 'NoSuchTask'"),
        ("Banking77Classification", "is no retrieval task"),
        ("SciFact@" + "0" * 40, r"cannot be had.*retrieval\.mteb_tasks"),
    ],
)
def test_a_task_that_cannot_be_had_is_named(source: str, says: str) -> None:
    with pytest.raises(SourceError, match=f"(?s){says}"):
        load_task(source)
