"""The reader measured on questions it never saw, from articles it never saw."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pandas as pd

from curriculum.artifacts import ModelArtifact
from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.plots import draw
from curriculum.reading.dataset import leaked_groups
from curriculum.reading.reader import Reader
from curriculum.reading.settings import ReaderSettings
from curriculum.reading.training import scores
from curriculum.results import Identity, Metric, StudyResult


def qa_report(
    reader: ModelArtifact, examples: pd.DataFrame, settings: ReaderSettings, *, seed: int, identities: list[Identity], device: str = "cpu"
) -> StudyResult:
    """F1 and exact match on the test split, by kind of question, with the hyper-parameter table."""
    test = examples[examples["split"] == "test"]
    begun = time.perf_counter()
    found = scores(Reader.load(reader.path, device), test)
    seconds = (time.perf_counter() - begun) / len(test)
    history = json.loads((reader.path / "history.json").read_text())
    by_kind = found.groupby("source")[["f1", "exact_match"]].mean().assign(n=found.groupby("source").size()).reset_index()
    metrics = [
        *(_metric(found, name) for name in ("f1", "exact_match")),
        Metric(name="leaked_groups", value=leaked_groups(examples), n=examples["group"].nunique(), higher_is_better=False),
        Metric(name="seconds_per_question", value=seconds, n=len(test), higher_is_better=False, deterministic=False),
        Metric(name="windows_per_second", value=reader.facts["windows_per_second"], deterministic=False),
        *(Metric(name=f"f1__{row.source}", value=float(row.f1), n=int(row.n)) for row in by_kind.itertuples()),
    ]
    wrong = found.sort_values("f1").head(12)[["question", "prediction", "gold", "f1"]]
    return StudyResult(
        study="qa_report", metrics=metrics, settings=settings.model_dump(mode="json") | {"chosen": reader.facts["chosen"]}, seeds=[seed],
        identities=identities, per_example=found, plots={"loss": _plot(history["loss"])},
        tables={"hyper_parameters": pd.DataFrame(history["trials"]), "by_kind": by_kind, "worst": wrong},
    )


def _metric(found: pd.DataFrame, name: str) -> Metric:
    low, high = bootstrap_mean(found[name].to_numpy())
    return Metric(name=name, value=float(found[name].mean()), low=low, high=high, n=len(found))


def _plot(losses: list[float]) -> bytes:
    def paint(axes: Any) -> None:
        width = max(1, len(losses) // 20)
        axes.plot(losses, alpha=0.3)
        axes.plot(np.arange(len(losses) - width + 1) + width - 1, np.convolve(losses, np.ones(width) / width, "valid"), label="running mean")

    return draw(paint, title="Training loss of the reader", x="step", y="cross-entropy")
