"""The gated pattern over every hand-written case: the hallucination rate with the bound that the number of cases allows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from curriculum.prompting.patterns import Kit
from curriculum.prompting.study import rates, run_pattern
from curriculum.results import Identity, Metric, StudyResult


def study_all_cases(
    cases: pd.DataFrame, kit: Kit, *, identities: list[Identity], checkpoints: Path, progress: Callable[[str], None], chunk: int = 20
) -> StudyResult:
    """Rates over all ``cases``, over each kind and over each part of the plan; a killed run goes on with the next chunk."""
    parts = []
    for start in range(0, len(cases), chunk):
        kept = checkpoints / f"cases-{start:05d}.parquet"
        if not kept.exists():
            _keep(run_pattern(kit.settings.gated_pattern, cases.iloc[start : start + chunk], kit), kept)
        parts.append(pd.read_parquet(kept))
        done = pd.concat(parts)
        progress(f"{len(done)} of {len(cases)} cases, {(done['verdict'] == 'hallucinated').sum()} hallucinated, {done['seconds'].sum():.0f} s")
    rows = pd.concat(parts, ignore_index=True).merge(cases[["case_id", "part"]], on="case_id", validate="one_to_one")
    metrics = rates(rows)
    for column in ("kind", "part"):
        for name, group in rows.groupby(column, sort=True):
            metrics += [m for m in rates(group, f"__{name}") if m.n and m.name.startswith("hallucination_rate")]
    verdicts = rows[["kind", "part", "question", "answer", "verdict", "reason"]]
    table = rows.groupby(["kind", "verdict"], sort=True).size().unstack(fill_value=0).reset_index()
    return StudyResult(
        study="hallucination_report", metrics=metrics, settings=kit.settings.model_dump(mode="json"), seeds=[kit.seed],
        identities=identities, per_example=rows, tables={"by_kind": table, "verdicts": verdicts}, remarks=[_remark(metrics[0], metrics[3], kit)],
    )  # fmt: skip


def _keep(rows: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    rows.to_parquet(unfinished, index=False)
    os.replace(unfinished, path)


def _remark(rate: Metric, bound: Metric, kit: Kit) -> str:
    return (
        f"Pattern '{kit.settings.gated_pattern}' over all {rate.n} cases: {rate.text()}; with 95% confidence the rate lies under "
        f"{bound.value:.3f} (one-sided, exact)."
    )
