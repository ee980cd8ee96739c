"""The hand-written prompt cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from curriculum.corpora.documents import text_digest
from curriculum.corpora.notes import read_yaml
from curriculum.errors import DataError

KINDS = ("answerable", "unanswerable", "false_premise")
COLUMNS = ["case_id", "question", "kind", "accepted", "context_note", "hallucination", "part"]


def load_cases(folder: Path) -> pd.DataFrame:
    """The cases of ``prompt_cases.yaml``.

    Raises:
        DataError: no cases, an id twice, an unknown kind, or an answerable case without an accepted answer.
    """
    path = folder / "prompt_cases.yaml"
    rows: list[dict[str, Any]] = read_yaml(path) or []
    if not rows:
        raise DataError(f"{path} holds no cases")
    for row in rows:
        if row.get("kind") not in KINDS:
            raise DataError(f"{path}: case {row.get('case_id')!r} is of kind {row.get('kind')!r}; use one of {', '.join(KINDS)}")
        if row["kind"] == "answerable" and not row.get("accepted"):
            raise DataError(f"{path}: case {row['case_id']!r} is answerable but accepts no answer; list some under accepted")
    table = pd.DataFrame([{c: row.get(c, "") for c in COLUMNS} | {"accepted": [str(a) for a in row.get("accepted") or []]} for row in rows])
    twice = table.loc[table["case_id"].duplicated(), "case_id"].tolist()
    if twice:
        raise DataError(f"{path}: ids stand twice ({', '.join(twice[:5])})")
    return table


def sample_cases(cases: pd.DataFrame, limit: int) -> pd.DataFrame:
    """At most ``limit`` cases, each kind in its share (at least one), chosen by hash."""
    if len(cases) <= limit:
        return cases
    cases = cases.assign(order=[text_digest(c) for c in cases["case_id"]]).sort_values("order")
    parts = [group.head(max(1, round(limit * len(group) / len(cases)))) for _, group in cases.groupby("kind")]
    return pd.concat(parts).sort_values("case_id").drop(columns="order").reset_index(drop=True)
