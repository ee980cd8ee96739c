"""Leakage between sides and the readers' agreement: what a sound folder shows, and what turns red when it is not sound."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from curriculum.corpora.claims import load_claims
from curriculum.corpora.notes import load_notes, load_questions
from curriculum.corpora.notes_study import kappa_metrics, near_duplicates, shared_spans, study_notes
from curriculum.corpora.two_hop import load_two_hop
from curriculum.prompting.cases import load_cases

NOTES = Path(__file__).parents[2] / "notes"
Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Tables:
    notes = load_notes(NOTES)
    return notes, load_questions(NOTES, notes), load_two_hop(NOTES, notes), load_cases(NOTES), load_claims(NOTES, notes)


def test_the_packaged_notes_leak_nothing(tables: Tables) -> None:
    study = study_notes(*tables)
    assert study.value("leaked_questions") == 0 and study.value("shared_spans") == 0, study.tables.get("leaks")
    assert study.value("notes") == len(tables[0]) and study.value("labelled_claims") == len(tables[4])
    by_kind = study.tables["per_kind"].groupby("table")["n"].sum()
    assert by_kind["questions"] == len(tables[1]) and by_kind["prompt cases"] == len(tables[3])
    assert study.per_example["questions"].sum() == len(tables[1]) and study.plots["words"].startswith(b"\x89PNG")


def test_a_question_copied_to_another_side_is_a_leak(tables: Tables) -> None:
    notes, questions, *rest = tables
    stolen = questions[questions["split"] == "train"].iloc[0]
    copied = questions.copy()
    row = copied.index[copied["split"] == "test"][0]
    copied.at[row, "question"] = "So " + stolen["question"].lower()
    study = study_notes(notes, copied, *rest)
    assert study.value("leaked_questions") >= 1 and stolen["question"] in study.tables["leaks"]["leak"].iloc[0]


def test_a_sentence_copied_to_another_side_is_a_leak(tables: Tables) -> None:
    notes, questions, *rest = tables
    sides = dict(zip(questions["note_id"], questions["split"], strict=True))
    train = next(i for i in notes.index if sides[notes.at[i, "doc_id"]] == "train")
    test = next(i for i in notes.index if sides[notes.at[i, "doc_id"]] == "test")
    copied = notes.copy()
    copied.at[test, "text"] += "\n\n" + max(copied.at[train, "text"].split("\n"), key=len)
    assert study_notes(copied, questions, *rest).value("shared_spans") == 1


def test_near_duplicates_are_of_two_sides_and_alike() -> None:
    texts = ["What is the rank of A?", "what is the rank of a", "What is the rank of B, then?", "Who?"]
    assert near_duplicates(texts, ["train", "test", "test", "dev"], 0.8) == [(texts[0], texts[1])]
    assert near_duplicates(texts, ["train"] * 4, 0.8) == []
    assert len(near_duplicates(texts, ["train", "test", "test", "dev"], 0.6)) == 2


def test_shared_spans_need_two_sides() -> None:
    texts = {"a": "one two three four", "b": "zero one two three", "c": "one two three"}
    assert shared_spans(texts, {"a": "train", "b": "test", "c": "train"}, 3) == [("a", "b", "one two three"), ("b", "c", "one two three")]
    assert shared_spans(texts, dict.fromkeys("abc", "dev"), 3) == []


def test_kappa_is_that_of_the_first_two_readings() -> None:
    readings = [[True, True], [False, False], [True, False], [False, False, True], [True, True], []]
    found = {m.name: m for m in kappa_metrics(pd.DataFrame({"readings": readings}), seed=0)}
    expected = cohen_kappa_score([1, 0, 1, 0, 1], [1, 0, 0, 0, 1])
    assert found["label_kappa"].value == pytest.approx(expected) and found["label_kappa"].n == 5
    assert found["label_agreement"].value == pytest.approx(0.8)
    assert kappa_metrics(pd.DataFrame({"readings": [[], [True]]}), seed=0) == []
