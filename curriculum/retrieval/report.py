"""Retrieval reported: each leg alone and the fusions, per query, with paired intervals; the fusion is chosen on dev queries."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult
from curriculum.retrieval.hybrid import LEGS, HybridRetriever
from curriculum.retrieval.measure import (
    FUSIONS,
    MEASURES,
    SYSTEMS,
    Searched,
    add_fusions,
    choose_fusion,
    dense_weight,
    latency,
    leg_overlap,
    missing_legs,
    per_query,
    search_legs,
    shortfall,
)
from curriculum.retrieval.mteb_task import KnownHits, mteb_scores, task_of
from curriculum.retrieval.settings import RetrievalSettings


def hybrid_report(
    retriever: HybridRetriever,
    passages: pd.DataFrame,
    tracks: pd.DataFrame,
    settings: RetrievalSettings,
    *,
    seed: int,
    identities: list[Identity],
    progress: Callable[[str], None],
) -> StudyResult:
    """Every system on every track. The fusion and the weight are chosen on dev; the test queries are read once.

    Raises:
        DataError: the headline track has no test queries.
    """
    headline = tracks[(tracks["track"] == settings.headline_track) & (tracks["split"] == "test")]
    if headline.empty:
        raise DataError(f"no test queries in the track '{settings.headline_track}'; correct the setting retrieval.headline_track")
    searched = []
    for (track, split), group in tracks.groupby(["track", "split"]):
        begun = time.perf_counter()
        searched.append(search_legs(retriever, group, settings.depth))
        progress(f"{track} {split}: {len(group)} queries in {time.perf_counter() - begun:.1f} s")
    dev, tests = ([s for s in searched if s.split == side] for side in ("dev", "test"))
    weight = dense_weight(dev)
    for one in searched:
        add_fusions(one, passages, settings.depth, weight)
    chosen = choose_fusion(dev)
    scores = pd.concat([_scores(s) for s in tests], ignore_index=True)
    paired = _paired(scores, seed)
    sample = headline.sort_values("group").head(30)
    speed = latency(retriever, list(sample["query"]), sample.iloc[0]["collection"], 10)
    return StudyResult(
        study="hybrid_search_report",
        metrics=[
            *_headline(scores, settings.headline_track, chosen, seed),
            Metric(name="missing_legs", value=missing_legs(searched), n=len(LEGS), higher_is_better=False),
            Metric(name="mteb_difference", value=_mteb_difference(tests, scores, passages), n=len(scores), higher_is_better=False),
            Metric(name="fusion_shortfall", value=shortfall(dev, chosen, settings), n=sum(len(s.queries) for s in dev), higher_is_better=False),
            *_per_track(scores, seed), *_gains(paired),
            *(Metric(name=f"leg_overlap__{s.track}", value=leg_overlap(s), n=len(s.queries)) for s in tests),
            *_speed(speed),
        ],
        settings=settings.model_dump(mode="json") | {"fusion": chosen, "dense_weight": weight},
        identities=identities,
        seeds=[seed],
        remarks=[
            f"Of the fusions, {chosen} had the best nDCG@10 on the dev queries: it alone is the hybrid's test score. "
            f"Its weighted form gives the dense leg {weight:.1f}, chosen on dev too.",
            f"Everything else searches by {settings.fusion}, the dense leg's share {settings.dense_weight:g}: fusion_shortfall is what that "
            "loses on dev against the best.",
            "Intervals resample questions: the phrasings of one question are no independent observations.",
        ],
        per_example=scores,
        tables={"systems": _systems(scores), "paired": paired, "latency": speed, "dev": _systems(_all(dev))},
        plots={"ndcg": _plot(scores, seed)},
    )


def _all(searched: list[Searched]) -> pd.DataFrame:
    columns = ["example_id", "track", "group", *(f"{m}__{s}" for s in SYSTEMS for m in MEASURES)]
    return pd.concat([_scores(s) for s in searched], ignore_index=True) if searched else pd.DataFrame(columns=columns)


def _scores(searched: Searched) -> pd.DataFrame:
    """One row a query: example_id, track, group, and ndcg_at_10, recall_at_100, mrr of each system as columns."""
    table = searched.queries[["query_id", "track", "group"]].rename(columns={"query_id": "example_id"})
    for system in SYSTEMS:
        found = per_query(searched.runs[system], searched.queries).rename(columns={m: f"{m}__{system}" for m in MEASURES})
        table = table.merge(found, on="example_id", validate="one_to_one")
    return table


def _by_question(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Mean score of each question [questions] over its phrasings."""
    return rows.groupby("group")[column].mean().to_numpy()


def _interval(rows: pd.DataFrame, name: str, column: str, seed: int) -> Metric:
    low, high = bootstrap_mean(_by_question(rows, column), seed=seed)
    return Metric(name=name, value=float(rows[column].mean()), low=low, high=high, n=len(rows))


def _headline(scores: pd.DataFrame, track: str, chosen: str, seed: int) -> list[Metric]:
    rows = scores[scores["track"] == track]
    return [_interval(rows, measure, f"{measure}__{chosen}", seed) for measure in MEASURES]


def _per_track(scores: pd.DataFrame, seed: int) -> list[Metric]:
    metrics = []
    for (track, rows), system in itertools.product(scores.groupby("track"), SYSTEMS):
        metrics += [_interval(rows, f"{measure}__{system}__{track}", f"{measure}__{system}", seed) for measure in MEASURES]
    return metrics


def _gains(paired: pd.DataFrame) -> list[Metric]:
    """What a fusion has over a leg in nDCG@10, of every track."""
    return [
        Metric(name=f"ndcg_over_{row.leg}__{row.fusion}__{row.track}", value=row.difference, low=row.low, high=row.high, n=int(row.questions))
        for row in paired.itertuples()
    ]


def _speed(table: pd.DataFrame) -> list[Metric]:
    return [
        Metric(
            name=f"latency_{quantile}_ms__{row.system}", value=getattr(row, f"{quantile}_ms"), n=int(row.n), unit="ms",
            higher_is_better=False, deterministic=False,
        )
        for row in table.itertuples()
        for quantile in ("p50", "p95")
    ]


def _mteb_difference(tests: list[Searched], scores: pd.DataFrame, passages: pd.DataFrame) -> float:
    """The largest gap in nDCG@10, over tracks and systems, between our per-query scores' mean and mteb's own evaluation."""
    gaps = []
    for searched in tests:
        own = passages[passages["collection"] == searched.queries.iloc[0]["collection"]]
        task = task_of(searched.track, own, searched.queries)
        for system in SYSTEMS:
            theirs = mteb_scores(KnownHits(system, searched.runs[system]), task)["ndcg_at_10"]
            gaps.append(abs(theirs - scores.loc[scores["track"] == searched.track, f"ndcg_at_10__{system}"].mean()))
    return float(max(gaps))


def _systems(scores: pd.DataFrame) -> pd.DataFrame:
    """track, system, queries, and the mean of each measure."""
    rows: list[dict[str, Any]] = []
    for (track, group), system in itertools.product(scores.groupby("track"), SYSTEMS):
        rows.append({"track": track, "system": system, "queries": len(group)} | {m: group[f"{m}__{system}"].mean() for m in MEASURES})
    return pd.DataFrame(rows, columns=["track", "system", "queries", *MEASURES])


def _paired(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Each fusion minus each leg in nDCG@10, over the same questions, with its paired 95% interval."""
    rows = []
    for (track, group), fusion, leg in itertools.product(scores.groupby("track"), FUSIONS, LEGS):
        new, old = (_by_question(group, f"ndcg_at_10__{system}") for system in (fusion, leg))
        found = paired_bootstrap(new, old, seed=seed)
        pair = {"track": track, "fusion": fusion, "leg": leg}
        rows.append(pair | {"difference": found.difference, "low": found.low, "high": found.high, "questions": found.n})
    return pd.DataFrame(rows)


def _plot(scores: pd.DataFrame, seed: int) -> bytes:
    def paint(axes: Any) -> None:
        groups = list(scores.groupby("track"))
        for number, (track, rows) in enumerate(groups):
            bars = [_interval(rows, system, f"ndcg_at_10__{system}", seed) for system in SYSTEMS]
            means = np.array([bar.value for bar in bars])
            ends = np.array([[bar.low, bar.high] for bar in bars]).T
            place = np.arange(len(SYSTEMS)) + 0.8 * (number - (len(groups) - 1) / 2) / len(groups)
            axes.bar(place, means, 0.75 / len(groups), yerr=np.abs(ends - means), label=track, capsize=2)
        axes.set_xticks(range(len(SYSTEMS)), SYSTEMS)

    return draw(paint, title="nDCG@10 on test queries, 95% intervals", y="nDCG@10")
