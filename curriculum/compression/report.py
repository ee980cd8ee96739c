"""The record of the context compression study: quality against tokens kept, and each system against chance at one share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from curriculum.compression.settings import CompressionSettings
from curriculum.compression.systems import CONTROLS, SYSTEMS, TITLES
from curriculum.evaluation.metrics import low_metric, mean_metric, paired_metric
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHOLE = "whole"
MEASURES = ("evidence", "f1")


def report(rows: pd.DataFrame, settings: CompressionSettings, *, tried: int, seed: int, identities: list[Identity]) -> StudyResult:
    """``rows``: question_id, system, share, text, kept, over, seconds, evidence, prediction, f1; ``tried`` questions were retrieved for.

    - ``f1__whole``; ``evidence__SYSTEM_PERCENT``, ``f1__SYSTEM_PERCENT`` and ``kept__SYSTEM_PERCENT`` at each share;
    - at ``settings.compared_at``, in pairs: ``evidence_gain__SYSTEM`` over pieces of the same kind by chance, ``f1_change__SYSTEM``
      from the whole context, ``own_gain`` of sentences near the own question over those near another one;
    - ``tokens_over_budget``: the most by which any context exceeds its budget.
    """
    at = rows[rows["share"] == settings.compared_at].pivot(index="question_id", columns="system", values=list(MEASURES))
    whole = rows[rows["system"] == WHOLE].set_index("question_id").loc[at.index]
    gains = [paired_metric(f"evidence_gain__{name}", at["evidence", name], at["evidence", other], seed) for name, other in CONTROLS.items()]
    changes = [paired_metric(f"f1_change__{name}", at["f1", name], whole["f1"], seed) for name in CONTROLS]
    own = paired_metric("own_gain", at["evidence", "dense"], at["evidence", "stranger"], seed)
    compressed = rows[rows["system"] != WHOLE].groupby(["system", "share"])
    curve = [mean_metric(f"{m}__{name}_{share * 100:g}", part[m], seed) for (name, share), part in compressed for m in ("kept", *MEASURES)]
    n = len(whole)
    seconds = rows[rows["share"] == settings.compared_at].groupby("system")["seconds"].mean()
    costs = [Metric(name=f"seconds__{s}", value=float(seconds[s]), n=n, unit="s", higher_is_better=False, deterministic=False) for s in SYSTEMS]
    metrics = [
        mean_metric("f1__whole", whole["f1"], seed), own, low_metric("own_gain_low", own),
        *gains, *(low_metric(m.name.replace("gain__", "gain_low__"), m) for m in gains), *changes,
        *curve,
        *costs,
        Metric(name="tokens_over_budget", value=float(rows["over"].max()), n=len(rows), higher_is_better=False),
        Metric(name="contexts_with_answer", value=n / tried, n=tried),
    ]  # fmt: skip
    table = rows.groupby(["system", "share"], sort=False)[["kept", *MEASURES]].mean().reset_index()
    shown = rows.loc[rows["share"].isin([settings.compared_at, 1.0]), ["question_id", "system", "text", "prediction", "f1"]]
    return StudyResult(
        study="context_compression_study", metrics=metrics, settings=settings.model_dump(mode="json"), identities=identities, seeds=[seed],
        remarks=_remarks(gains, changes, own, settings, n, tried),
        per_example=_per_example(at, whole),
        tables={"curve": table, "contexts": shown},
        plots={name: _plot(table, name, title) for name, title in (("f1", "F1 of the reader"), ("evidence", "answers kept"))},
    )  # fmt: skip


def _per_example(at: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    columns = {f"{m}__{name}": at[m, name] for m in MEASURES for name in SYSTEMS}
    return pd.DataFrame(columns).assign(f1__whole=whole["f1"]).rename_axis("example_id").reset_index()


def _remarks(gains: list[Metric], changes: list[Metric], own: Metric, settings: CompressionSettings, n: int, tried: int) -> list[str]:
    def said(metric: Metric) -> str:
        word = {1: "more", -1: "fewer", 0: "not to be told from as many"}[metric.sign()]
        return f"{TITLES[metric.name.partition('__')[2]]}: {word} ({metric.text()})"

    lost = [f"{TITLES[m.name.partition('__')[2]]} {m.text()}" for m in changes]
    return [
        f"At {settings.compared_at:.0%} of the tokens, answers kept against pieces of the same kind by chance: {'; '.join(map(said, gains))}.",
        f"F1 against the whole context: {'; '.join(lost)}.",
        f"Sentences near the own question against those near another question: {own.text()}. Where this holds zero, the question does not matter.",
        f"{n} contexts of {tried} questions hold the answer, and are compressed. Tokens are those of {settings.model}. An answer counts as "
        "kept where it stands word for word.",
    ]


def _plot(table: pd.DataFrame, measure: str, title: str) -> bytes:
    def paint(axes: Axes) -> None:
        whole = table.loc[table["system"] == WHOLE, measure].iloc[0]
        for name, sentences in SYSTEMS.items():
            own = table[table["system"] == name].sort_values("share")
            if name == "stranger":  # a control of one share
                continue
            axes.plot([*own["kept"], 1.0], [*own[measure], whole], "-" if sentences else "--", marker="o", markersize=3, label=TITLES[name])

    return draw(paint, title="Context compression", x="tokens kept", y=title, size=(5.8, 3.6))
