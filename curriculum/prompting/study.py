"""The prompt study: every pattern over the same cases, with rates, their exact bounds, and every trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from curriculum.evaluation.statistics import clopper_pearson, clopper_pearson_upper
from curriculum.plots import draw
from curriculum.prompting.cases import sample_cases
from curriculum.prompting.patterns import PATTERNS, Kit
from curriculum.prompting.scoring import judge
from curriculum.results import Identity, Metric, StudyResult


def run_pattern(pattern: str, cases: pd.DataFrame, kit: Kit) -> pd.DataFrame:
    """One row a case: what was asked, said and judged."""
    traces = PATTERNS[pattern](kit, list(cases["question"]))
    rows = []
    for case, trace in zip(cases.itertuples(), traces, strict=True):
        judged = judge(case.kind, trace.answer, case.accepted)
        rows.append(
            {
                "example_id": f"{pattern}/{case.case_id}", "pattern": pattern, "case_id": case.case_id, "kind": case.kind,
                "question": case.question, "answer": trace.answer, "verdict": judged.verdict, "reason": judged.reason,
                "hallucinated": float(judged.verdict == "hallucinated"), "correct": float(judged.verdict == "correct"),
                "accepted": " | ".join(case.accepted), "would_be_a_hallucination": case.hallucination, "transcript": trace.transcript,
                "prompt_tokens": trace.prompt_tokens, "completion_tokens": trace.completion_tokens, "seconds": trace.seconds,
            }
        )
    return pd.DataFrame(rows)


def rates(rows: pd.DataFrame, suffix: str = "") -> list[Metric]:
    """Hallucination rate over all cases, answer rate and accuracy over the answerable ones, with exact 95% intervals."""
    answerable = rows[rows["kind"] == "answerable"]
    counts = {
        "hallucination_rate": (int((rows["verdict"] == "hallucinated").sum()), len(rows), False),
        "answer_rate": (int((answerable["verdict"] != "abstained").sum()), len(answerable), True),
        "accuracy": (int((answerable["verdict"] == "correct").sum()), len(answerable), True),
    }
    metrics = []
    for name, (hits, n, up) in counts.items():
        low, high = clopper_pearson(hits, n)
        value = hits / n if n else float("nan")
        metrics.append(Metric(name=name + suffix, value=value, n=n, low=low, high=high, higher_is_better=up))
    hits, n, _ = counts["hallucination_rate"]
    bound = clopper_pearson_upper(hits, n)
    return [*metrics, Metric(name=f"hallucination_rate_upper{suffix}", value=bound, n=n, higher_is_better=False)]


def prompt_study(
    cases: pd.DataFrame, kit: Kit, *, identities: list[Identity], progress: Callable[[str], None]
) -> StudyResult:
    """Every pattern of the settings over one sample of the cases."""
    chosen, parts, metrics = sample_cases(cases, kit.settings.max_cases), [], []
    for pattern in kit.settings.patterns:
        rows = run_pattern(pattern, chosen, kit)
        parts.append(rows)
        found = rates(rows, f"__{pattern}")
        metrics += [*found, _tokens(rows, pattern)]
        progress(f"{pattern}: " + ", ".join(f"{m.name.split('__')[0]} {m.value:.2f}" for m in found[:3]) + f", {rows['seconds'].sum():.0f} s")
    per_example = pd.concat(parts, ignore_index=True)
    gated = per_example[per_example["pattern"] == kit.settings.gated_pattern]
    metrics = [*rates(gated), *metrics] if len(gated) else metrics
    table = _table(per_example)
    remarks = [f"The rates without a suffix are those of the pattern '{kit.settings.gated_pattern}', over {len(chosen)} of {len(cases)} cases."]
    verdicts = per_example[["pattern", "kind", "question", "answer", "verdict", "reason"]]
    return StudyResult(
        study="prompt_study", metrics=metrics, settings=kit.settings.model_dump(mode="json"), seeds=[kit.seed], identities=identities,
        remarks=remarks, per_example=per_example, tables={"patterns": table, "verdicts": verdicts}, plots={"verdicts": _plot(per_example)},
    )


def _tokens(rows: pd.DataFrame, pattern: str) -> Metric:
    total = rows["prompt_tokens"] + rows["completion_tokens"]
    return Metric(name=f"tokens__{pattern}", value=float(total.mean()), n=len(rows), higher_is_better=False)


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    found = []
    for pattern, group in rows.groupby("pattern", sort=False):
        values = {m.name: m.value for m in rates(group)}
        cost = {"prompt_tokens": group["prompt_tokens"].mean(), "completion_tokens": group["completion_tokens"].mean()}
        found.append({"pattern": pattern} | values | cost | {"seconds": group["seconds"].sum()})
    return pd.DataFrame(found)


def _plot(rows: pd.DataFrame) -> bytes:
    shares = rows.groupby(["pattern", "verdict"], sort=False).size().unstack(fill_value=0)
    shares = shares.div(shares.sum(axis=1), axis=0)

    def paint(axes: Any) -> None:
        left = np.zeros(len(shares))
        for verdict, color in (("correct", "#2e7d32"), ("abstained", "#9e9e9e"), ("hallucinated", "#c62828")):
            width = shares.get(verdict, pd.Series(0.0, index=shares.index)).to_numpy()
            axes.barh(list(shares.index), width, left=left, color=color, label=verdict)
            left = left + width

    return draw(paint, title="Verdicts by pattern", x="share of cases")
