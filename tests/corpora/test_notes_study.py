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
    asked = questions[(questions["split"] == "train") & (questions["kind"] == "answerable")].iloc[0]
    text = notes.set_index("doc_id").at[asked["note_id"], "text"]
    sentence = next(line for line in text.split("\n") if asked["answers"][0] in line)
    test = notes.index[notes["doc_id"].isin(questions.loc[questions["split"] == "test", "note_id"])][0]
    copied = notes.copy()
    copied.at[test, "text"] += "\n\n" + sentence
    study = study_notes(copied, questions, *rest)
    assert study.value("shared_spans") == 1 and asked["note_id"] in study.tables["leaks"]["leak"].iloc[0]


def test_near_duplicates_are_of_two_sides_and_alike() -> None:
    texts = ["What is the rank of A?", "what is the rank of a", "What is the rank of B, then?", "Who?"]
    assert near_duplicates(texts, ["train", "test", "test", "dev"], 0.8) == [(texts[0], texts[1])]
    assert near_duplicates(texts, ["train"] * 4, 0.8) == []
    assert len(near_duplicates(texts, ["train", "test", "test", "dev"], 0.6)) == 2


def test_shared_spans_hold_an_answer_and_stand_on_two_sides() -> None:
    texts = {"a": "It weighs, in all, 42 kg today. Formula one.", "b": "weighs in all 42 kg", "c": "in all 42 kg. Formula one.", "d": "Formula one"}
    rows = [("a", "train", ["42 kg"]), ("b", "test", ["weighs in all 42 kg"]), ("c", "train", []), ("d", "test", [])]
    questions = pd.DataFrame(rows, columns=["note_id", "split", "answers"])
    found = shared_spans(texts, questions, 4)
    assert [(a, b) for a, b, _ in found] == [("a", "b"), ("b", "a"), ("b", "c")]
    assert all("42" in run for _, _, run in found)
    assert shared_spans(texts, questions.assign(split="dev"), 4) == []


def test_kappa_is_that_of_the_first_two_readings() -> None:
    readings = [[True, True], [False, False], [True, False], [False, False, True], [True, True], []]
    found = {m.name: m for m in kappa_metrics(pd.DataFrame({"readings": readings}), seed=0)}
    expected = cohen_kappa_score([1, 0, 1, 0, 1], [1, 0, 0, 0, 1])
    assert found["label_kappa"].value == pytest.approx(expected) and found["label_kappa"].n == 5
    assert found["label_agreement"].value == pytest.approx(0.8)
    assert kappa_metrics(pd.DataFrame({"readings": [[], [True]]}), seed=0) == []
