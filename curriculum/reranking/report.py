"""What reranking gains over the first stage on test queries, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.plots import draw
from curriculum.reranking.mining import Retriever
from curriculum.reranking.reranker import Reranker, blend, passage_texts
from curriculum.reranking.scoring import judgements, ndcg_at_10
from curriculum.reranking.settings import RerankerSettings
from curriculum.results import Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def report_reranking(
    reranker: Reranker,
    passages: pd.DataFrame,
    tracks: pd.DataFrame,
    settings: RerankerSettings,
    *,
    retriever: Retriever,
    progress: Callable[[str], None],
    seed: int = 0,
) -> StudyResult:
    """nDCG@10 of the hybrid top ``settings.depth`` before and after reranking, over the same test queries.

    ``ndcg_gain`` has the paired bootstrap interval of the mean difference; ``ndcg_gain_alone`` is that of the cross-encoder's order without
    the first stage's scores: what it is by itself, where the weight that was chosen on dev leaves it out. The latency is one query at a
    time, reranking alone.

    Raises:
        DataError: there are no test queries.
    """
    test = tracks[tracks["split"] == "test"]
    if test.empty:
        raise DataError("retrieval_tracks has no queries of split 'test'; there is nothing to report on")
    chosen = [
        rows.sample(min(len(rows), settings.report_queries), random_state=seed) for _, rows in test.groupby("track", sort=True)
    ]
    texts = passage_texts(passages)
    per_query = pd.concat([_measure(rows, reranker, texts, retriever, settings, progress) for rows in chosen], ignore_index=True)
    metrics = _metrics(per_query, seed)
    return StudyResult(
        study="reranker_report",
        metrics=metrics,
        settings={**settings.model_dump(mode="json"), "weight": reranker.weight},
        seeds=[seed],
        remarks=_remarks({m.name: m for m in metrics}, reranker.weight, settings.depth),
        per_example=per_query.drop(columns=["query"]),
        tables={"by_track": _by_track(per_query, seed), "largest_changes": _largest(per_query)},
        plots={"gain": _plot(per_query)},
    )


def _measure(
    rows: pd.DataFrame, reranker: Reranker, texts: Mapping[str, str], retriever: Retriever,
    settings: RerankerSettings, progress: Callable[[str], None],
) -> pd.DataFrame:  # fmt: skip
    found = []
    for (track, collection), part in rows.groupby(["track", "collection"], sort=True):
        ids, asked = part["query_id"].astype(str).tolist(), part["query"].astype(str).tolist()
        before = retriever.search(asked, settings.depth, str(collection))
        after, alone, seconds = [], [], []
        for query, candidates in zip(asked, before, strict=True):
            start = time.perf_counter()
            (logits,) = reranker.score([query], [candidates], texts)
            after.append(blend(candidates, logits, reranker.weight))
            seconds.append(time.perf_counter() - start)
            alone.append(blend(candidates, logits, 1.0))
        judged = judgements(part["relevant_ids"].tolist(), part["grades"].tolist(), ids)
        old, new, sole = (ndcg_at_10(dict(zip(ids, order, strict=True)), judged) for order in (before, after, alone))
        found.append(
            pd.DataFrame(
                {
                    "example_id": ids,
                    "track": track,
                    "query": asked,
                    "ndcg_at_10": [new[i] for i in ids],
                    "ndcg_at_10__hybrid": [old[i] for i in ids],
                    "ndcg_at_10__alone": [sole[i] for i in ids],
                    "seconds": seconds,
                }
            )
        )
        progress(f"{track}: {len(ids)} queries reranked, {np.mean(seconds) * 1000:.0f} ms a query")
    return pd.concat(found, ignore_index=True)


def _metrics(per_query: pd.DataFrame, seed: int) -> list[Metric]:
    metrics = _quality(per_query, "", seed)
    for track, rows in per_query.groupby("track", sort=True):
        metrics += _quality(rows, f"__{track}", seed)
    for name, share in (("p50", 50), ("p95", 95)):
        value = float(np.percentile(per_query["seconds"], share) * 1000)
        metrics.append(
            Metric(name=f"latency_{name}_ms", value=value, n=len(per_query), unit="ms", higher_is_better=False, deterministic=False)
        )
    return metrics


def _quality(rows: pd.DataFrame, suffix: str, seed: int) -> list[Metric]:
    new, old = rows["ndcg_at_10"].to_numpy(), rows["ndcg_at_10__hybrid"].to_numpy()
    sides = {"ndcg_gain": new, "ndcg_gain_alone": rows["ndcg_at_10__alone"].to_numpy()}
    pairs = {name: paired_bootstrap(side, old, seed=seed) for name, side in sides.items()}
    found = [Metric(name=f"{name}{suffix}", value=g.difference, n=g.n, low=g.low, high=g.high) for name, g in pairs.items()]
    before = "ndcg_at_10__hybrid" if not suffix else f"ndcg_at_10{suffix}__hybrid"
    for name, scores in ((f"ndcg_at_10{suffix}", new), (before, old)):
        low, high = bootstrap_mean(scores, seed=seed)
        found.append(Metric(name=name, value=float(scores.mean()), n=len(scores), low=low, high=high))
    return found


def _remarks(metrics: Mapping[str, Metric], weight: float, depth: int) -> list[str]:
    gain, alone = metrics["ndcg_gain"], metrics["ndcg_gain_alone"]
    reach = f"nDCG@10 of the reranked top {depth} against the hybrid order: {gain.text()}, cross-encoder weight {weight:g}."
    found = {1: "Reranking helps", -1: "Reranking harms", 0: "No gain is shown, the paired interval holds zero"}[gain.sign()]
    left_out = "On dev no weight was better by more than chance, so that the hybrid order stays as it is. " if weight == 0 else ""
    return [f"{found}: {reach}", f"{left_out}By the cross-encoder's order alone the difference is {alone.text()}."]


def _by_track(per_query: pd.DataFrame, seed: int) -> pd.DataFrame:
    table = []
    for track, rows in per_query.groupby("track", sort=True):
        gain = paired_bootstrap(rows["ndcg_at_10"].to_numpy(), rows["ndcg_at_10__hybrid"].to_numpy(), seed=seed)
        line = {"track": track, "n": gain.n, "hybrid": rows["ndcg_at_10__hybrid"].mean(), "reranked": rows["ndcg_at_10"].mean()}
        table.append({**line, "gain": gain.difference, "low": gain.low, "high": gain.high})
    return pd.DataFrame(table)


def _largest(per_query: pd.DataFrame, n: int = 10) -> pd.DataFrame:
    change = per_query["ndcg_at_10"] - per_query["ndcg_at_10__hybrid"]
    order = change.abs().sort_values(ascending=False, kind="stable").index[:n]
    return per_query.loc[order, ["example_id", "track", "query", "ndcg_at_10__hybrid", "ndcg_at_10"]].reset_index(drop=True)


def _plot(per_query: pd.DataFrame) -> bytes:
    means = per_query.groupby("track", sort=True)[["ndcg_at_10__hybrid", "ndcg_at_10"]].mean()

    def paint(axes: Axes) -> None:
        places = np.arange(len(means))
        axes.bar(places - 0.2, means["ndcg_at_10__hybrid"], 0.4, label="hybrid")
        axes.bar(places + 0.2, means["ndcg_at_10"], 0.4, label="reranked")
        axes.set_xticks(places, list(means.index))
        axes.set_ylim(0, 1)

    return draw(paint, title="Reranking the hybrid top results", y="nDCG@10")
