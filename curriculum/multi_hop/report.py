"""The record of the multi-hop study: evidence and answers of each way of asking twice against a single search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from curriculum.evaluation.metrics import low_metric, mean_metric, paired_metric
from curriculum.multi_hop.hops import WAYS
from curriculum.multi_hop.settings import MultiHopSettings
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINGLE, CONTROL = "single", "stranger"
MEASURES = ("evidence", "both", "f1")
TITLES = {"passage": "the passage found", "sentence": "its nearest sentence", "terms": "its rarest words"}


def report(
    rows: pd.DataFrame, curves: pd.DataFrame, kept: dict[str, int], settings: MultiHopSettings, *, seed: int, identities: list[Identity]
) -> StudyResult:
    """``rows``: a query each, as the study makes them. Means and intervals are over questions, whose phrasings are one unit.

    - ``evidence__WAY``: share of a question's two places among the passages shown, ``both__WAY``: both of them, ``f1__WAY``: of what
      is read there; ``single`` is one search;
    - ``evidence_gain__WAY``, ``f1_gain__WAY``: paired differences from ``single``;
    - ``own_gain``: evidence of the second searches alone after the question's own first passage against another question's.
    """
    units = rows.groupby("group").mean(numeric_only=True)
    ways = (SINGLE, *WAYS)
    means = [mean_metric(f"{m}__{way}", units[f"{m}__{way}"], seed) for way in ways for m in MEASURES]
    gains = [paired_metric(f"{m}_gain__{way}", units[f"{m}__{way}"], units[f"{m}__{SINGLE}"], seed) for way in WAYS for m in MEASURES]
    own = paired_metric("own_gain", units["second__own"], units[f"second__{CONTROL}"], seed)
    lows = [low_metric(m.name.replace("_gain", "_gain_low"), m) for m in (own, *gains)]
    kinds = pd.concat([rows.assign(kind="all"), rows]).groupby("kind", sort=True)
    by_kind = kinds[[f"{m}__{way}" for m in MEASURES for way in ways]].mean().reset_index()
    return StudyResult(
        study="multi_hop_study",
        metrics=[*means, *gains, own, *lows, *(Metric(name=f"kept_of_first__{way}", value=float(kept[way])) for way in WAYS)],
        settings=settings.model_dump(mode="json") | {"kept_of_first": kept}, identities=identities, seeds=[seed],
        remarks=_remarks({m.name: m for m in (*means, *gains, own)}, kept, rows, settings),
        per_example=rows.drop(columns=["query", *(c for c in rows if c.startswith("answer__"))]),
        tables={"by_kind": by_kind, "answers": rows[["example_id", "query", *(f"answer__{w}" for w in ways)]], "kept": curves},
        plots={"evidence": _plot(by_kind)},
    )  # fmt: skip


def _remarks(found: dict[str, Metric], kept: dict[str, int], rows: pd.DataFrame, settings: MultiHopSettings) -> list[str]:
    word = {1: "more", -1: "less", 0: "cannot be told from as much"}
    said = [
        f"asked again with {TITLES[way]}: {word[found[f'evidence_gain__{way}'].sign()]} ({found[f'evidence_gain__{way}'].text()}; F1 "
        f"{found[f'f1_gain__{way}'].text()}; {kept[way]} from the first search)"
        for way in WAYS
    ]
    return [
        f"Evidence among {settings.shown} passages against one search, which finds {found['evidence__single'].text()}: {'; '.join(said)}.",
        f"Both places: {found['both__single'].text()} by one search.",
        f"The second searches alone, after the own first passage against another question's: {found['own_gain'].text()}. Where this holds "
        "zero, what the first search found does not matter.",
        f"{len(rows)} test queries of {rows['group'].nunique()} questions, which intervals resample. How many passages the first search gives "
        "was chosen on dev queries.",
    ]


def _plot(by_kind: pd.DataFrame) -> bytes:
    def paint(axes: Axes) -> None:
        for shift, way in enumerate((SINGLE, *WAYS)):
            places = [place + 0.2 * (shift - 1.5) for place in range(len(by_kind))]
            axes.bar(places, by_kind[f"evidence__{way}"], 0.18, label="one search" if way == SINGLE else TITLES[way])
        axes.set_xticks(range(len(by_kind)), by_kind["kind"])

    return draw(paint, title="Two searches against one", y="share of the evidence shown")
