"""Questions that need two notes: the first passage names what the second one answers about, or both are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from curriculum.corpora.notes import DIFFICULTIES, load_splits, read_items, refuse_repeats
from curriculum.errors import DataError

TWO_HOP_KINDS = ("bridge", "comparison")
TWO_HOP_COLUMNS = ["question_id", "question", "phrasings", "kind", "answers", "note_ids", "spans", "difficulty", "split"]
FILE = "two_hop.yaml"


def load_two_hop(folder: Path, notes: pd.DataFrame) -> pd.DataFrame:
    """The table of ``two_hop.yaml`` (``TWO_HOP_COLUMNS``): ``note_ids`` and ``spans`` name the two supporting places.

    A folder without that file has none.

    Raises:
        DataError: a note that does not exist, a span that is not in it, an answer in neither span, notes of two sides, an
            unknown kind, or a question that stands twice.
    """
    path, texts = folder / FILE, dict(zip(notes["doc_id"], notes["text"], strict=True))
    if not path.exists():
        return pd.DataFrame(columns=TWO_HOP_COLUMNS)
    splits = load_splits(folder, set(texts))
    rows = [_row(item, texts, splits, path) for item in read_items(path, ("id", "question", "kind", "answers", "supports"))]
    refuse_repeats((row["question_id"] for row in rows), folder, "question id")
    refuse_repeats((text for row in rows for text in [row["question"], *row["phrasings"]]), folder, "question", normalised=True)
    return pd.DataFrame(rows, columns=TWO_HOP_COLUMNS)


def _row(item: dict[str, Any], texts: dict[str, str], splits: dict[str, str], path: Path) -> dict[str, Any]:
    place, difficulty = f"{path}: question {item['id']!r}", item.get("difficulty", "hard")
    if item["kind"] not in TWO_HOP_KINDS:
        raise DataError(f"{place} is of kind {item['kind']!r}; use one of {', '.join(TWO_HOP_KINDS)}")
    if difficulty not in DIFFICULTIES:
        raise DataError(f"{place} is of difficulty {difficulty!r}; use one of {', '.join(DIFFICULTIES)}")
    supports = [(support.get("note_id"), str(support.get("span", ""))) for support in item["supports"]]
    if len(supports) != 2 or len({note for note, _ in supports}) != 2:
        raise DataError(f"{place} needs two supports, of two notes")
    for note, span in supports:
        if note not in texts:
            raise DataError(f"{place} rests on '{note}', which has no note")
        if not span or span not in texts[note]:
            raise DataError(f"{place}: {span!r} is no verbatim span of {note}.md; quote the note")
    sides = {splits[note] for note, _ in supports}
    if len(sides) != 1:
        raise DataError(f"{place} rests on notes of two sides ({', '.join(sorted(sides))}); choose notes of one")
    absent = [answer for answer in item["answers"] if not any(str(answer) in span for _, span in supports)]
    if absent:
        raise DataError(f"{place}: the answer {absent[0]!r} is in neither span")
    return {
        "question_id": str(item["id"]), "question": str(item["question"]), "phrasings": list(map(str, item.get("phrasings") or [])),
        "kind": item["kind"], "answers": list(map(str, item["answers"])), "note_ids": [note for note, _ in supports],
        "spans": [span for _, span in supports], "difficulty": difficulty, "split": sides.pop(),
    }
