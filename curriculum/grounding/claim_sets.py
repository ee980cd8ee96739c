"""Labelled claims from elsewhere, in the layouts they are published in: what the verifier is tested on and never trained on."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from curriculum.corpora.readers import iter_jsonl
from curriculum.errors import DataError
from curriculum.grounding.claims import statement

COLUMNS = ["passage", "claim", "supported", "kind"]
_TABLES, _LINES = (".tsv", ".csv", ".tsv.gz", ".csv.gz"), (".jsonl", ".jsonl.gz")
_TRUE, _FALSE = {"true", "1", "yes", "supported"}, {"false", "0", "no", "unsupported"}
Row = Mapping[str, Any]


def read_claims(source: Path) -> pd.DataFrame:
    """The columns ``passage``, ``claim``, ``supported`` (bool) and ``kind`` of a file, or of a folder's files.

    The layout is known by its fields: BEGIN (Dziri et al., 2022), HaluEval's question answering (Li et al., 2023: a right and a
    hallucinated answer a row, each made a statement with its question), SNLI (Bowman et al., 2015: entailment is support), or
    ``passage``, ``claim``, ``supported``. Of a folder in which files are named ``test``, those alone are read.

    Raises:
        DataError: no such file, a layout that is not known, a label that is neither, or no rows of one label.
    """
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.name.endswith((*_TABLES, *_LINES)))
    files = [p for p in files if "test" in p.name.lower()] or files
    if not files:
        raise DataError(f"{source} holds no labelled claims: {', '.join((*_TABLES, *_LINES))} are read")
    rows = [row for path in files for row in _rows(path)]
    found = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(["passage", "claim", "supported"], ignore_index=True)
    if found["supported"].nunique() != 2:
        raise DataError(f"{source} needs supported and unsupported claims; every one of its {len(found)} has the same label")
    return found


def _rows(path: Path) -> Iterable[tuple[str, str, bool, str]]:
    read = list(iter_jsonl(path) if path.name.endswith(_LINES) else _table(path))
    fields = set(read[0]) if read else set()
    for needed, layout in _LAYOUTS.items():
        if set(needed) <= fields:
            return [made for number, row in enumerate(read, 1) for made in layout(row, f"{path}, row {number}")]
    known = "; ".join(", ".join(needed) for needed in _LAYOUTS)
    raise DataError(f"{path} has the fields {', '.join(sorted(map(str, fields))) or 'of nothing'}; known layouts have {known}")


def _table(path: Path) -> list[dict[str, Any]]:
    tabs = path.name.endswith((".tsv", ".tsv.gz"))
    try:
        # published tab-separated files hold bare quotes
        frame = pd.read_csv(path, sep="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, dtype=str, keep_default_na=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} does not parse as a table: {error}") from error
    return frame.to_dict("records")


def _begin(row: Row, place: str) -> list[tuple[str, str, bool, str]]:
    label = row["begin_label"].strip()
    if label == "Generic":  # says nothing that a passage could support
        return []
    return [(row["knowledge"], row["response"], _label(label, {"Fully attributable"}, {"Not fully attributable"}, place), label.lower())]


def _halueval(row: Row, place: str) -> list[tuple[str, str, bool, str]]:
    answers = ((row["right_answer"], True, "right answer"), (row["hallucinated_answer"], False, "hallucinated answer"))
    return [(row["knowledge"], statement(row["question"], answer), supported, kind) for answer, supported, kind in answers]


def _snli(row: Row, place: str) -> list[tuple[str, str, bool, str]]:
    label = row["label"].strip()
    if label == "-":  # the annotators did not agree
        return []
    return [(row["premise"], row["hypothesis"], _label(label, {"entailment"}, {"neutral", "contradiction"}, place), label)]


def _own(row: Row, place: str) -> list[tuple[str, str, bool, str]]:
    supported = _label(str(row["supported"]).strip().lower(), _TRUE, _FALSE, place)
    return [(row["passage"], row["claim"], supported, str(row.get("kind") or ("supported" if supported else "unsupported")))]


def _label(given: str, true: set[str], false: set[str], place: str) -> bool:
    if given not in true | false:
        raise DataError(f"{place}: the label {given!r} is none of {', '.join(sorted(true | false))}")
    return given in true


_LAYOUTS: dict[tuple[str, ...], Callable[[Row, str], list[tuple[str, str, bool, str]]]] = {
    ("knowledge", "response", "begin_label"): _begin,
    ("knowledge", "question", "right_answer", "hallucinated_answer"): _halueval,
    ("premise", "hypothesis", "label"): _snli,
    ("passage", "claim", "supported"): _own,
}
