"""Rows of the table of prompt patterns."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from curriculum.prompting.cases import sample_cases
from curriculum.prompting.patterns import Kit
from curriculum.prompting.study import rates, run_pattern
from curriculum.results import Identity, Metric, StudyResult


def pattern_row(pattern: str, cases: pd.DataFrame, kit: Kit, *, identities: list[Identity], progress: Callable[[str], None]) -> StudyResult:
    """One pattern over the sample of cases that the prompt study takes, so that the rows of the table share their cases."""
    chosen = sample_cases(cases, kit.settings.max_cases)
    rows = run_pattern(pattern, chosen, kit)
    rows["example_id"] = rows["case_id"]  # the same in every row
    progress(f"{len(rows)} cases, {(rows['verdict'] == 'hallucinated').sum()} hallucinated, {rows['seconds'].sum():.0f} s")
    tokens = rows["prompt_tokens"] + rows["completion_tokens"]
    return StudyResult(
        study=f"prompt_pattern_row/{pattern}",
        metrics=[*rates(rows), Metric(name="tokens", value=float(tokens.mean()), n=len(rows), higher_is_better=False)],
        settings=kit.settings.model_dump(mode="json") | {"pattern": pattern},
        identities=identities, seeds=[kit.seed], per_example=rows,
        tables={"verdicts": rows[["kind", "question", "answer", "verdict", "reason"]]},
    )  # fmt: skip
