"""Claims about passages of the notes, labelled as supported or not: what the support verifier is calibrated with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from curriculum.corpora.notes import load_splits, read_items, refuse_repeats
from curriculum.errors import DataError

CLAIM_KINDS = ("verbatim-paraphrase", "swapped-number", "neighbouring-fact", "over-generalisation", "negation")
CLAIM_COLUMNS = ["claim_id", "note_id", "passage", "claim", "supported", "why", "kind", "split", "readings"]
_REQUIRED = ("claim_id", "passage", "claim", "supported", "kind")


def load_claims(folder: Path, notes: pd.DataFrame) -> pd.DataFrame:
    """The claims of every ``*.claims.yaml`` (``CLAIM_COLUMNS``); ``readings`` are the labels of independent readers, if given.

    Claims about test notes are ``test``, those about train and dev notes ``dev``: nothing is trained on them.

    Raises:
        DataError: no claims, a field that is missing or of no known value, a passage that is not in its note, an id that stands
            twice, or a label that all readers contradict.
    """
    texts = dict(zip(notes["doc_id"], notes["text"], strict=True))
    splits, rows = load_splits(folder, set(texts)), []
    for path in sorted(folder.glob("*.claims.yaml")):
        note = path.name.removesuffix(".claims.yaml")
        if note not in texts:
            raise DataError(f"{path} is about '{note}', which has no note; add {note}.md or rename the file")
        side = "test" if splits[note] == "test" else "dev"
        rows += [row | {"note_id": note, "split": side} for row in _rows(path, texts[note])]
    if not rows:
        raise DataError(f"{folder} holds no *.claims.yaml; write one beside a note")
    refuse_repeats((row["claim_id"] for row in rows), folder, "claim id")
    return pd.DataFrame([{"why": "", "readings": []} | row for row in rows])[CLAIM_COLUMNS]


def _rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    for row in read_items(path, _REQUIRED):
        place, readings = f"{path}: claim {row['claim_id']!r}", row.get("readings") or []
        if row["passage"] not in text:
            raise DataError(f"{place}: its passage is no verbatim span of the note; quote the note")
        if not isinstance(row["supported"], bool):
            raise DataError(f"{place}: supported is {row['supported']!r}; write true or false")
        if row["kind"] not in CLAIM_KINDS:
            raise DataError(f"{place}: kind is {row['kind']!r}; use one of {', '.join(CLAIM_KINDS)}")
        if not isinstance(readings, list) or not all(isinstance(label, bool) for label in readings):
            raise DataError(f"{place}: readings are {readings!r}; list one true or false a reader")
        if readings and row["supported"] not in readings:
            raise DataError(f"{place}: supported is {str(row['supported']).lower()}, and every reader says otherwise; change the label")
        yield row
