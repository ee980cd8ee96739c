"""The schemas (pandera) of the tables that the notes folder becomes: what every later reader of them may rely on."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa

from curriculum.corpora.claims import CLAIM_COLUMNS, CLAIM_KINDS
from curriculum.corpora.notes import DIFFICULTIES, QUESTION_COLUMNS, QUESTION_KINDS, SPLITS
from curriculum.corpora.two_hop import TWO_HOP_COLUMNS, TWO_HOP_KINDS
from curriculum.errors import DataError
from curriculum.prompting.cases import COLUMNS as CASE_COLUMNS
from curriculum.prompting.cases import KINDS as CASE_KINDS


def _words() -> pa.Column:
    return pa.Column(str, pa.Check(lambda texts: texts.str.strip() != "", error="is empty"))


def _listing(least: int = 0) -> pa.Column:
    """A column of lists of non-empty strings."""
    good = pa.Check(
        lambda cell: len(cell) >= least and all(isinstance(x, str) and x.strip() for x in cell), element_wise=True,
        error=f"is no list of {least or 'any number of'} or more texts",
    )  # fmt: skip
    return pa.Column(object, good)


def _one_of(values: tuple[str, ...]) -> pa.Column:
    return pa.Column(str, pa.Check.isin(values))


def _table(columns: list[str], special: dict[str, pa.Column], *, unique: str, checks: list[pa.Check] | None = None) -> pa.DataFrameSchema:
    known = {name: special.get(name, _words()) for name in columns}
    return pa.DataFrameSchema(known, checks=checks, unique=[unique], strict=True, ordered=True)


def _has_answers(table: pd.DataFrame) -> pd.Series:
    return table["answers"].map(len).gt(0) == table["kind"].isin(["answerable", "russian"])


SCHEMAS = {
    "notes_questions": _table(
        QUESTION_COLUMNS,
        {
            "phrasings": _listing(), "answers": _listing(), "kind": _one_of(QUESTION_KINDS), "difficulty": _one_of(DIFFICULTIES),
            "split": _one_of(SPLITS),
        },
        unique="question_id",
        checks=[pa.Check(_has_answers, error="a question that can be answered has answers, another has none")],
    ),
    "two_hop_questions": _table(
        TWO_HOP_COLUMNS,
        {
            "phrasings": _listing(), "answers": _listing(1), "note_ids": _listing(2), "spans": _listing(2), "kind": _one_of(TWO_HOP_KINDS),
            "difficulty": _one_of(DIFFICULTIES), "split": _one_of(SPLITS),
        },
        unique="question_id",
    ),
    "labelled_claims": _table(
        CLAIM_COLUMNS,
        {
            "supported": pa.Column(bool), "why": pa.Column(str), "kind": _one_of(CLAIM_KINDS), "split": _one_of(("dev", "test")),
            "readings": pa.Column(object),
        },
        unique="claim_id",
    ),
    "prompt_cases": _table(
        CASE_COLUMNS,
        {"accepted": _listing(), "kind": _one_of(CASE_KINDS), "context_note": pa.Column(str), "part": pa.Column(str)},
        unique="case_id",
    ),
}


def conform(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """``table``, which conforms to the schema of asset ``name``. An empty one has no types yet, and conforms.

    Raises:
        DataError: it does not; the message names the column, the rule and the first row that breaks it.
    """
    if table.empty:
        return table
    try:
        return SCHEMAS[name].validate(table, lazy=False)
    except pa.errors.SchemaError as error:
        cases = getattr(error, "failure_cases", None)
        first = f", first: {cases.iloc[0].to_dict()}" if isinstance(cases, pd.DataFrame) and len(cases) else ""
        raise DataError(f"{name} breaks its schema: {error.reason_code.value if error.reason_code else ''} {error.check}{first}") from error
