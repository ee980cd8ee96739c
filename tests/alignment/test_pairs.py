"""Preference pairs of the real notes: what is grounded is, what is not is not, and no note is on two sides."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from curriculum.alignment.pairs import COLUMNS, KINDS, SIDES, leaks, preference_pairs, questions_of
from curriculum.corpora.notes import load_notes, load_questions
from curriculum.errors import DataError

NOTES = Path(__file__).parents[2] / "notes"


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    notes = load_notes(NOTES)
    return notes, load_questions(NOTES, notes)


@pytest.fixture(scope="module")
def pairs(tables) -> pd.DataFrame:
    return preference_pairs(*tables, passage_words=40, seed=0)


def test_the_grounded_answer_stands_in_the_passage_and_the_other_is_no_accepted_answer(pairs):
    assert list(pairs.columns) == COLUMNS and pairs["pair_id"].is_unique and set(pairs["kind"]) == set(KINDS)
    for row in pairs.itertuples():
        assert row.chosen in row.passage and row.chosen in row.answers
        assert row.rejected.casefold() not in {answer.casefold() for answer in row.answers}
        if row.kind == "other-note":
            assert row.borrowed_from not in ("", row.note_id) and row.rejected.casefold() not in row.passage.casefold()
        if row.kind == "same-passage" and not any(c.isdigit() for c in row.rejected):
            assert row.rejected in row.passage


def test_length_gives_the_label_away_in_neither_direction(pairs):
    longer = (pairs["chosen"].str.len() > pairs["rejected"].str.len()).mean()
    shorter = (pairs["chosen"].str.len() < pairs["rejected"].str.len()).mean()
    assert abs(longer - shorter) < 0.15


def test_the_sides_follow_the_notes_and_share_nothing(pairs, tables):
    assert set(pairs["side"]) == set(SIDES) and leaks(pairs) == {"leaked_notes": 0, "leaked_prompts": 0}
    split = dict(zip(tables[1]["note_id"], tables[1]["split"], strict=True))
    allowed = {"train": {"sft", "preference"}, "dev": {"policy"}, "test": {"test"}}
    assert all(row.side in allowed[split[row.note_id]] for row in pairs.itertuples())


@pytest.mark.parametrize(("column", "name"), [("note_id", "leaked_notes"), ("borrowed_from", "leaked_notes"), ("passage", "leaked_prompts")])
def test_a_leak_is_counted(pairs, column, name):
    tested, trained = pairs[(pairs["side"] == "test") & (pairs["kind"] == "other-note")], pairs[pairs["side"] == "preference"]
    leaking = pairs.copy()
    leaking.loc[trained.index[0], column] = tested.iloc[0][column]
    assert leaks(leaking)[name] == 1


def test_the_same_seed_gives_the_same_pairs_and_another_gives_others(pairs, tables):
    assert preference_pairs(*tables, passage_words=40, seed=0).equals(pairs)
    assert not preference_pairs(*tables, passage_words=40, seed=1).equals(pairs)


def test_questions_come_whole_and_in_an_order_that_a_limit_does_not_change(pairs):
    few, more = questions_of(pairs, "test", 3), questions_of(pairs, "test", 5)
    assert [rows["question_id"].iloc[0] for rows in few] == [rows["question_id"].iloc[0] for rows in more[:3]]
    assert all(rows["question_id"].nunique() == 1 and len(rows) == (pairs["question_id"] == rows["question_id"].iloc[0]).sum() for rows in more)


def test_notes_without_a_held_out_side_are_refused(tables):
    notes, questions = tables
    with pytest.raises(DataError, match="no preference pair on the side test"):
        preference_pairs(notes, questions[questions["split"] != "test"], passage_words=40, seed=0)
