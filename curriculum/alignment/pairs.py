"""Preference pairs from the study notes: to one question on one passage, a grounded answer and an ungrounded one.

Three kinds of ungrounded answer, so that no single cue gives the label away: something else of the same kind from the same
passage, the answer to a question on another note, and the right answer with its meaning changed. Notes do not cross sides.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pandas as pd

from curriculum.corpora.documents import split_of, text_digest
from curriculum.errors import DataError
from curriculum.grounding.rewriting import CHANGES
from curriculum.grounding.sentences import sentences
from curriculum.grounding.synthesis import distractor, sentence_at, window
from curriculum.reading.dataset import notes_examples

COLUMNS = ["pair_id", "question_id", "note_id", "borrowed_from", "side", "question", "passage", "answers", "chosen", "rejected", "kind"]
SIDES = ("sft", "preference", "policy", "test")
KINDS = ("same-passage", "other-note", "altered")
_CANDIDATES = 12  # answers of other notes, of which the one of most similar length is taken


def preference_pairs(notes: pd.DataFrame, questions: pd.DataFrame, *, passage_words: int, seed: int) -> pd.DataFrame:
    """The pairs of every answerable question (``COLUMNS``), up to one of each of ``KINDS``. The same seed gives the same pairs.

    ``side`` follows the notes' split: training notes are halved by hash into ``sft`` and ``preference``, dev notes are ``policy``,
    test notes ``test``. ``answers`` are the accepted spans, of which ``chosen`` is the shortest. ``borrowed_from`` is the note of
    an ``other-note`` answer, of the same side.

    Raises:
        DataError: a side has no pair.
    """
    examples = [row for row in notes_examples(notes, questions) if row["example_id"].endswith("/0")]
    for row in examples:
        row["side"], row["chosen"] = _side(row["title"], row["split"]), min(row["answers"], key=len)
    rng, rows = random.Random(seed), []
    for row in examples:
        others = [(other["title"], other["chosen"]) for other in examples if other["side"] == row["side"] and other["title"] != row["title"]]
        rows += _of_question(row, others, passage_words, rng)
    table = pd.DataFrame(rows, columns=COLUMNS)
    empty = [side for side in SIDES if side not in set(table["side"])]
    if empty:
        raise DataError(f"no preference pair on the side {', '.join(empty)}: the notes need answerable questions on every split")
    return table


def _side(note: str, split: str) -> str:
    halves = {"sft": 0.5, "preference": 0.5}
    return {"dev": "policy", "test": "test"}.get(split) or split_of(f"alignment {note}", halves)


def _of_question(row: dict, others: Sequence[tuple[str, str]], words: int, rng: random.Random) -> list[dict]:
    parts, chosen = sentences(row["context"]), row["chosen"]
    low, high = window(parts, sentence_at(row["context"], parts, row["context"].index(chosen)), words, rng)
    passage = " ".join(parts[low:high])
    if chosen not in passage:
        return []
    found = {"same-passage": ("", distractor(chosen, parts[low:high], rng)), "other-note": _from_elsewhere(chosen, passage, others, rng)}
    found["altered"] = ("", _altered(chosen, parts[low:high], rng))
    known = {answer.casefold() for answer in row["answers"]}
    question_id = row["example_id"].removesuffix("/0")
    return [
        {
            "pair_id": f"{question_id}/{kind}", "question_id": question_id, "note_id": row["title"], "borrowed_from": source,
            "side": row["side"], "question": row["question"], "passage": passage, "answers": row["answers"], "chosen": chosen,
            "rejected": wrong, "kind": kind,
        }
        for kind, (source, wrong) in found.items() if wrong is not None and wrong.casefold() not in known
    ]  # fmt: skip


def _from_elsewhere(chosen: str, passage: str, others: Sequence[tuple[str, str]], rng: random.Random) -> tuple[str, str | None]:
    """The answer to a question on another note: with a figure where ``chosen`` has one, of like length, absent from the passage."""
    alike = [
        (note, answer) for note, answer in others
        if bool(re.search(r"\d", answer)) == bool(re.search(r"\d", chosen)) and answer.casefold() not in passage.casefold()
    ]  # fmt: skip
    if not alike:
        return "", None
    some = rng.sample(alike, min(_CANDIDATES, len(alike)))
    return min(some, key=lambda item: abs(len(item[1]) - len(chosen)))


def _altered(chosen: str, parts: Sequence[str], rng: random.Random) -> str | None:
    kinds = list(CHANGES)
    rng.shuffle(kinds)
    changed = (CHANGES[kind](chosen, rng, parts) for kind in kinds)
    return next((text for text in changed if text is not None and text != chosen), None)


def leaks(pairs: pd.DataFrame) -> dict[str, int]:
    """``leaked_notes``: notes asked about or borrowed from on two sides. ``leaked_prompts``: questions or passages on two sides."""
    sides: dict[str, set[str]] = {}
    for column in ("note_id", "borrowed_from"):
        for note, side in zip(pairs[column], pairs["side"], strict=True):
            sides.setdefault(note, set()).add(side)
    sides.pop("", None)
    texts: dict[str, set[str]] = {}
    for column in ("question", "passage"):
        for text, side in zip(pairs[column], pairs["side"], strict=True):
            texts.setdefault(" ".join(re.findall(r"\w+", text.casefold())), set()).add(side)
    return {"leaked_notes": sum(len(s) > 1 for s in sides.values()), "leaked_prompts": sum(len(s) > 1 for s in texts.values())}


def questions_of(pairs: pd.DataFrame, side: str, limit: int) -> list[pd.DataFrame]:
    """The pairs of at most ``limit`` questions of a side, a table a question, in an order fixed by hash."""
    grouped = {str(key): rows for key, rows in pairs[pairs["side"] == side].groupby("question_id")}
    return [grouped[key] for key in sorted(grouped, key=text_digest)[:limit]]
