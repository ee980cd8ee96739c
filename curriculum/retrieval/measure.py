"""Systems searched and scored on retrieval tracks: both legs, and their fusions by mteb's HybridSearch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytrec_eval

from curriculum.retrieval.hybrid import FLOOR, LEGS, HybridRetriever, floored, fuse, leg_weights, ranked
from curriculum.retrieval.mteb_task import KnownHits, Run, task_of
from curriculum.retrieval.settings import Fusion, RetrievalSettings
from curriculum.retrieval.tracks import qrels

# name -> the fusion function, and whether the dense leg's weight is tuned on dev queries
FUSIONS: Mapping[str, tuple[Fusion, bool]] = {
    "rrf": ("rrf", False), "dbsf": ("dbsf", False), "rsf": ("rsf", False), "weighted": ("rsf", True),
}  # fmt: skip
SYSTEMS = (*LEGS, *FUSIONS)
MEASURES = {"ndcg_at_10": "ndcg_cut_10", "recall_at_100": "recall_100", "mrr": "recip_rank"}
_WEIGHTS = tuple(tenths / 10 for tenths in range(1, 10))


@dataclass
class Searched:
    """The queries of one track and split, and the hits of every system on them."""

    track: str
    split: str
    queries: pd.DataFrame
    runs: dict[str, Run] = field(default_factory=dict)


def per_query(run: Run, tracks: pd.DataFrame) -> pd.DataFrame:
    """example_id, ndcg_at_10, recall_at_100, mrr of every query of ``tracks``, by trec_eval; a query without hits scores 0."""
    truth = qrels(tracks)
    found = pytrec_eval.RelevanceEvaluator(truth, set(MEASURES.values())).evaluate({q: run.get(q) or {"": 0.0} for q in truth})
    rows = [{"example_id": q, **{name: found[q][trec] for name, trec in MEASURES.items()}} for q in truth]
    return pd.DataFrame(rows, columns=["example_id", *MEASURES])


def ndcg(run: Run, tracks: pd.DataFrame) -> float:
    """Mean nDCG@10."""
    return float(per_query(run, tracks)["ndcg_at_10"].mean())


def search_legs(retriever: HybridRetriever, tracks: pd.DataFrame, depth: int) -> Searched:
    """The hits of both legs on one track and split, ``depth`` a query."""
    first = tracks.iloc[0]
    hits = retriever.legs(list(tracks["query"]), depth, first["collection"])
    runs = {leg: {qid: dict(found) for qid, found in zip(tracks["query_id"], hits[leg], strict=True)} for leg in LEGS}
    return Searched(first["track"], first["split"], tracks, runs)


def dense_weight(dev: list[Searched]) -> float:
    """The dense leg's share in relative score fusion with the best mean dev nDCG@10 over the tracks; a half without any."""
    if not dev:
        return 0.5
    return max(_WEIGHTS, key=lambda weight: mean_ndcg(dev, "rsf", weight))


def mean_ndcg(searched: list[Searched], fusion: Fusion, weight: float) -> float:
    """Mean nDCG@10 over the tracks when their legs are joined by ``fusion``, the dense one counting ``weight``."""
    return float(np.mean([ndcg(_fused(s, fusion, leg_weights(weight)), s.queries) for s in searched]))


def shortfall(dev: list[Searched], chosen: str, settings: RetrievalSettings) -> float:
    """What the fusion that searches everywhere else loses on dev, in mean nDCG@10 over the tracks, against the one that was chosen there."""
    if not dev:
        return 0.0
    best = float(np.mean([ndcg(s.runs[chosen], s.queries) for s in dev]))
    return best - mean_ndcg(dev, settings.fusion, settings.dense_weight)


def _fused(searched: Searched, fusion: Fusion, weights: list[float]) -> Run:
    legs = [searched.runs[leg] for leg in LEGS]
    return {q: fuse([leg.get(q, {}) for leg in legs], fusion, weights) for q in searched.queries["query_id"]}


def add_fusions(searched: Searched, passages: pd.DataFrame, depth: int, weight: float) -> None:
    """Fuse the legs' hits by mteb's HybridSearch, once a system of ``FUSIONS``; ``weight`` is the tuned share of the dense leg."""
    from mteb.models.hybrid_wrappers import HybridSearch

    both = {q: floored([searched.runs[leg].get(q, {}) for leg in LEGS]) for q in searched.queries["query_id"]}
    plain = [KnownHits(leg, searched.runs[leg]) for leg in LEGS]
    with_floor = [KnownHits(leg, {q: own[place] for q, own in both.items()}) for place, leg in enumerate(LEGS)]
    task = task_of(searched.track, passages.head(1), searched.queries)
    task.load_data()
    asked = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}
    for system, (fusion, tuned) in FUSIONS.items():
        legs, weights = with_floor if fusion == "rsf" else plain, leg_weights(weight) if tuned else None
        model = HybridSearch(legs, weights, sub_model_top_k=depth + 1, fusion_strategy=fusion)
        found = model.search(task.dataset["default"]["test"]["queries"], top_k=depth + 1, **asked)
        searched.runs[system] = {q: dict(ranked({p: score for p, score in own.items() if p != FLOOR}, depth)) for q, own in found.items()}


def choose_fusion(dev: list[Searched]) -> str:
    """The fusion with the best mean dev nDCG@10 over the tracks that have dev queries; RRF where none has."""
    if not dev:
        return "rrf"
    means = {system: float(np.mean([ndcg(s.runs[system], s.queries) for s in dev])) for system in FUSIONS}
    return max(FUSIONS, key=lambda system: means[system])


def missing_legs(searched: list[Searched]) -> int:
    """How many legs answered less than half of the queries of some track: a leg that is broken, not one that is weak."""
    broken = {leg for s in searched for leg in LEGS if np.mean([bool(s.runs[leg].get(q)) for q in s.queries["query_id"]]) < 0.5}
    return len(broken)


def leg_overlap(searched: Searched, k: int = 10) -> float:
    """Mean share of the legs' best ``k`` that both have: near 1 there is nothing to fuse, near 0 one leg may be broken."""
    shares = []
    for query in searched.queries["query_id"]:
        best = [{pid for pid, _ in sorted(searched.runs[leg].get(query, {}).items(), key=lambda hit: -hit[1])[:k]} for leg in LEGS]
        shares.append(len(best[0] & best[1]) / k)
    return float(np.mean(shares))


def latency(retriever: HybridRetriever, queries: list[str], collection: str, k: int) -> pd.DataFrame:
    """system, p50_ms, p95_ms, n: milliseconds of single queries one after another, of each leg and of the whole hybrid.

    The dense leg's time holds the encoding of the query.
    """
    rows = []
    for system in (*LEGS, "hybrid"):
        spent = []
        for query in [queries[0], *queries]:  # the first one warms up
            begun = time.perf_counter()
            if system in LEGS:
                retriever.leg(system, [query], k, collection)
            else:
                retriever.search([query], k, collection)
            spent.append(1000 * (time.perf_counter() - begun))
        p50, p95 = np.percentile(spent[1:], [50, 95])
        rows.append({"system": system, "p50_ms": float(p50), "p95_ms": float(p95), "n": len(queries)})
    return pd.DataFrame(rows)
