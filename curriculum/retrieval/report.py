"""Retrieval measured: each leg alone and three fusions, per query, with paired intervals; the fusion is chosen on dev queries."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytrec_eval

from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult
from curriculum.retrieval.hybrid import HybridRetriever
from curriculum.retrieval.mteb_task import KnownHits, Run, mteb_scores, task_of
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.retrieval.tracks import qrels

LEGS = ("bm25", "dense")
FUSIONS = ("rrf", "dbsf", "rsf")
_TREC = {"ndcg_at_10": "ndcg_cut_10", "recall_at_100": "recall_100", "mrr": "recip_rank"}


def per_query(run: Run, tracks: pd.DataFrame) -> pd.DataFrame:
    """example_id, ndcg_at_10, recall_at_100, mrr of every query of ``tracks``; a query without hits scores 0."""
    truth = qrels(tracks)
    found = pytrec_eval.RelevanceEvaluator(truth, set(_TREC.values())).evaluate({q: run.get(q) or {"": 0.0} for q in truth})
    rows = [{"example_id": q, **{name: found[q][trec] for name, trec in _TREC.items()}} for q in truth]
    return pd.DataFrame(rows, columns=["example_id", *_TREC])


@dataclass(frozen=True)
class Searched:
    """The hits of every system on one track and split, and its queries."""

    track: str
    split: str
    queries: pd.DataFrame
    runs: dict[str, Run]


def search_track(retriever: HybridRetriever, tracks: pd.DataFrame, passages: pd.DataFrame, depth: int) -> Searched:
    """Search one track and split with each leg, and fuse by mteb's HybridSearch."""
    from mteb.models.hybrid_wrappers import HybridSearch

    first = tracks.iloc[0]
    queries = list(tracks["query"])
    hits = retriever.legs(queries, depth, first["collection"])
    runs: dict[str, Run] = {
        leg: {qid: dict(found) for qid, found in zip(tracks["query_id"], hits[leg], strict=True)} for leg in LEGS
    }
    legs = [KnownHits(leg, runs[leg]) for leg in LEGS]
    asked = task_of(first["track"], passages.head(1), tracks)
    asked.load_data()
    dataset = asked.dataset["default"]["test"]["queries"]
    for fusion in FUSIONS:
        model = HybridSearch(legs, fusion_strategy=fusion, sub_model_top_k=depth)
        runs[fusion] = model.search(
            dataset, task_metadata=asked.metadata, hf_split="test", hf_subset="default", top_k=depth, encode_kwargs={}
        )
    return Searched(first["track"], first["split"], tracks, runs)


def missing_legs(searched: list[Searched]) -> int:
    """How many legs answered less than half of the queries of some track: a leg that is broken, not one that is weak."""
    broken = {leg for s in searched for leg in LEGS if np.mean([bool(s.runs[leg].get(q)) for q in s.queries["query_id"]]) < 0.5}
    return len(broken)


def choose_fusion(searched: list[Searched]) -> str:
    """The fusion of the best mean dev nDCG@10 over the tracks that have dev queries; RRF where none has."""
    dev = [s for s in searched if s.split == "dev"]
    if not dev:
        return "rrf"
    means = {f: float(np.mean([per_query(s.runs[f], s.queries)["ndcg_at_10"].mean() for s in dev])) for f in FUSIONS}
    return max(FUSIONS, key=lambda f: means[f])


def latency(retriever: HybridRetriever, queries: list[str], collection: str, k: int) -> pd.DataFrame:
    """Milliseconds of single queries, one after another: each leg's and the whole hybrid's p50 and p95."""
    retriever.search(queries[:1], k, collection)
    rows = []
    for query in queries:
        begun = time.perf_counter()
        retriever.search([query], k, collection)
        rows.append(1000 * (time.perf_counter() - begun))
    return pd.DataFrame([{"system": "hybrid", "p50_ms": np.percentile(rows, 50), "p95_ms": np.percentile(rows, 95), "n": len(rows)}])


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
    """Every system on every track. The test queries are read once, with the fusion that dev chose."""
    searched = []
    for (track, split), group in tracks.groupby(["track", "split"]):
        begun = time.perf_counter()
        searched.append(search_track(retriever, group, passages, settings.depth))
        progress(f"{track} {split}: {len(group)} queries in {time.perf_counter() - begun:.1f} s")
    chosen = choose_fusion(searched)
    tests = [s for s in searched if s.split == "test"]
    scores = pd.concat([_scores(s) for s in tests], ignore_index=True)
    metrics = _metrics(scores, settings, chosen, missing_legs(tests))
    metrics += [_by_mteb(s, passages, chosen) for s in tests]
    paired = _paired(scores, seed)
    sample = tests[0].queries.head(30)
    tables = {"systems": _systems(scores), "paired": paired, "latency": latency(retriever, list(sample["query"]), sample.iloc[0]["collection"], 10)}
    remarks = [f"Of the fusions, {chosen} had the best nDCG@10 on the dev queries; only it is reported as the hybrid's test score."]
    return StudyResult(
        study="hybrid_search_report", metrics=metrics, settings=settings.model_dump(mode="json") | {"fusion": chosen},
        identities=identities, seeds=[seed], remarks=remarks, per_example=scores, tables=tables, plots={"ndcg": _plot(scores)},
    )


def _scores(searched: Searched) -> pd.DataFrame:
    """One row a query: example_id, track, and ndcg_at_10, recall_at_100, mrr of each system as columns."""
    table = searched.queries[["query_id"]].rename(columns={"query_id": "example_id"}).assign(track=searched.track)
    for system in (*LEGS, *FUSIONS):
        found = per_query(searched.runs[system], searched.queries).rename(columns={m: f"{m}__{system}" for m in _TREC})
        table = table.merge(found, on="example_id", validate="one_to_one")
    return table


def _metrics(scores: pd.DataFrame, settings: RetrievalSettings, chosen: str, missing: int) -> list[Metric]:
    headline = scores[scores["track"] == settings.headline_track]
    headline = headline if len(headline) else scores
    low, high = bootstrap_mean(headline[f"ndcg_at_10__{chosen}"].to_numpy())
    metrics = [
        Metric(name="ndcg_at_10", value=float(headline[f"ndcg_at_10__{chosen}"].mean()), low=low, high=high, n=len(headline)),
        Metric(name="recall_at_100", value=float(headline[f"recall_at_100__{chosen}"].mean()), n=len(headline)),
        Metric(name="missing_legs", value=missing, n=len(LEGS), higher_is_better=False),
    ]
    for (track, rows), system in itertools.product(scores.groupby("track"), (*LEGS, *FUSIONS)):
        low, high = bootstrap_mean(rows[f"ndcg_at_10__{system}"].to_numpy())
        name = f"ndcg_at_10__{system}__{track}"
        metrics.append(Metric(name=name, value=float(rows[f"ndcg_at_10__{system}"].mean()), low=low, high=high, n=len(rows)))
    return metrics


def _by_mteb(searched: Searched, passages: pd.DataFrame, chosen: str) -> Metric:
    """mteb's own nDCG@10 of the chosen fusion: the reference the per-query scores must average to."""
    own = passages[passages["collection"] == searched.queries.iloc[0]["collection"]]
    scores = mteb_scores(KnownHits(chosen, searched.runs[chosen]), task_of(searched.track, own, searched.queries))
    return Metric(name=f"mteb_ndcg_at_10__{searched.track}", value=float(scores["ndcg_at_10"]), n=len(searched.queries))


def _systems(scores: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (track, group), system in itertools.product(scores.groupby("track"), (*LEGS, *FUSIONS)):
        rows.append({"track": track, "system": system, "queries": len(group)} | {m: group[f"{m}__{system}"].mean() for m in _TREC})
    return pd.DataFrame(rows)


def _paired(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Each fusion minus each leg in nDCG@10, over the same queries, with its paired 95% interval."""
    rows = []
    for (track, group), fusion, leg in itertools.product(scores.groupby("track"), FUSIONS, LEGS):
        found = paired_bootstrap(group[f"ndcg_at_10__{fusion}"].to_numpy(), group[f"ndcg_at_10__{leg}"].to_numpy(), seed=seed)
        rows.append({"track": track, "fusion": fusion, "leg": leg, "difference": found.difference, "low": found.low, "high": found.high})
    return pd.DataFrame(rows)


def _plot(scores: pd.DataFrame) -> bytes:
    systems = (*LEGS, *FUSIONS)

    def paint(axes: Any) -> None:
        groups = list(scores.groupby("track"))
        for number, (track, rows) in enumerate(groups):
            means = [rows[f"ndcg_at_10__{s}"].mean() for s in systems]
            ends = np.array([bootstrap_mean(rows[f"ndcg_at_10__{s}"].to_numpy()) for s in systems])
            error = np.abs(ends.T - means)
            place = np.arange(len(systems)) + 0.8 * (number - (len(groups) - 1) / 2) / len(groups)
            axes.bar(place, means, 0.75 / len(groups), yerr=error, label=track, capsize=2)
        axes.set_xticks(range(len(systems)), systems)

    return draw(paint, title="nDCG@10 on test queries, 95% intervals", y="nDCG@10")
