"""Every system with and without expansion, searched over the same queries and scored a query."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from curriculum.evaluation import metrics
from curriculum.expansion.hyde import mean_vectors, strangers
from curriculum.expansion.rm3 import Rm3Index
from curriculum.results import Metric
from curriculum.retrieval.bm25 import Bm25Index, Hits
from curriculum.retrieval.dense import DenseIndex, Encoder
from curriculum.retrieval.hybrid import fuse, ranked
from curriculum.retrieval.measure import per_query

SYSTEMS = ("bm25", "bm25_rm3", "dense", "dense_hyde", "hybrid", "hybrid_rm3", "hybrid_hyde", "hybrid_both")
CONTROLS = ("hyde_alone", "hyde_shuffled")
MEASURES = ("ndcg_at_10", "recall_at_100")
PASSES = 3  # of a timed search: Java compiles during the first
# what is compared -> (the system, what it is held against)
PAIRS = {
    "rm3": ("bm25_rm3", "bm25"), "hyde": ("dense_hyde", "dense"), "hybrid_rm3": ("hybrid_rm3", "hybrid"),
    "hybrid_hyde": ("hybrid_hyde", "hybrid"), "hybrid_both": ("hybrid_both", "hybrid"), "hyde_alone": ("hyde_alone", "dense"),
    "hyde_own": ("dense_hyde", "hyde_shuffled"),
}  # fmt: skip
_FUSED = {
    "hybrid": ("bm25", "dense"), "hybrid_rm3": ("bm25_rm3", "dense"), "hybrid_hyde": ("bm25", "dense_hyde"),
    "hybrid_both": ("bm25_rm3", "dense_hyde"),
}  # fmt: skip


@dataclass(frozen=True)
class Vectors:
    """Query vectors [queries, dimension] as asked, and what HyDE makes of them: the mean with the query's own passages, those
    passages alone, and the mean with the passages of another question."""

    plain: np.ndarray
    hyde: np.ndarray
    alone: np.ndarray
    shuffled: np.ndarray
    ms: dict[str, float]


def vectors_of(queries: pd.DataFrame, written: pd.DataFrame, encoder: Encoder, seed: int) -> Vectors:
    """Vectors of ``queries`` (query_id, query, group) with the passages of ``written`` (query_id, sample, passage)."""
    ms: dict[str, float] = {}
    texts_SQ = written.pivot(index="sample", columns="query_id", values="passage")[list(queries["query_id"])].to_numpy()
    plain = _timed(ms, "encode_query", len(queries), lambda: encoder.queries(list(queries["query"])))
    flat = _timed(ms, "encode_passages", len(queries), lambda: encoder.passages(list(texts_SQ.ravel())))
    passages_SQD, full_SQ = flat.reshape(*texts_SQ.shape, -1), texts_SQ != ""
    other = strangers(list(queries["group"]), seed)
    hyde = mean_vectors(plain, passages_SQD, full_SQ)
    weight_Q1 = 1 + full_SQ.sum(0)[:, None]
    alone = np.where(weight_Q1 > 1, hyde * weight_Q1 - plain, plain)  # without a passage there is only the query
    return Vectors(plain, hyde, alone, mean_vectors(plain, passages_SQD[:, other], full_SQ[:, other]), ms)


def search_systems(
    queries: list[str], vectors: Vectors, bm25: Bm25Index, rm3: Rm3Index, dense: DenseIndex, depth: int
) -> tuple[dict[str, Hits], dict[str, float]]:
    """Every system's ``depth`` best, the hybrids by reciprocal rank fusion of their two legs' ``depth`` best.

    Beside them the milliseconds a query of each step but the generator's.
    """
    ms, count = dict(vectors.ms), len(queries)
    hits = {
        "bm25": _timed(ms, "bm25", count, lambda: bm25.search(queries, depth), PASSES),
        "bm25_rm3": _timed(ms, "bm25_rm3", count, lambda: rm3.search(queries, depth), PASSES),
        "dense": _timed(ms, "dense", count, lambda: dense.search(vectors.plain, depth), PASSES),
        "dense_hyde": dense.search(vectors.hyde, depth),
        "hyde_alone": dense.search(vectors.alone, depth),
        "hyde_shuffled": dense.search(vectors.shuffled, depth),
    }
    for name, legs in _FUSED.items():
        pairs = zip(*(hits[leg] for leg in legs), strict=True)
        hits[name] = [ranked(fuse([dict(own) for own in pair], "rrf"), depth) for pair in pairs]
    return hits, ms


def _timed(ms: dict[str, float], name: str, queries: int, work: Callable[[], Any], passes: int = 1) -> Any:
    """What ``work`` returns; its milliseconds a query, the least of ``passes``, go to ``ms[name]``."""
    spent, done = [], None
    for _ in range(passes):
        begun = time.perf_counter()
        done = work()
        spent.append(1000 * (time.perf_counter() - begun) / queries)
    ms[name] = min(spent)
    return done


def scored(hits: dict[str, Hits], tracks: pd.DataFrame) -> pd.DataFrame:
    """example_id, track, group, and MEASURE__SYSTEM for every system, by trec_eval; a row a query of ``tracks``, in its order."""
    table = tracks[["query_id", "track", "group"]].rename(columns={"query_id": "example_id"}).reset_index(drop=True)
    for system, own in hits.items():
        run = {query: dict(found) for query, found in zip(tracks["query_id"], own, strict=True)}
        found = per_query(run, tracks)[["example_id", *MEASURES]].rename(columns={m: f"{m}__{system}" for m in MEASURES})
        table = table.merge(found, on="example_id", validate="one_to_one")
    return table


def mean_metric(scores: pd.DataFrame, measure: str, system: str, seed: int, suffix: str = "") -> Metric:
    """Mean over questions with its interval; the phrasings of a question are one unit."""
    name = f"{measure}__{system}"
    return metrics.mean_metric(f"{name}{suffix}", scores.groupby("group")[name].mean(), seed)


def gain_metric(scores: pd.DataFrame, measure: str, pair: str, seed: int, suffix: str = "") -> Metric:
    """The paired difference of the two systems of ``PAIRS[pair]`` over the same questions; named ``ndcg_gain__PAIR`` or ``recall_gain__PAIR``."""
    units = scores.groupby("group")[[f"{measure}__{system}" for system in PAIRS[pair]]].mean().to_numpy()
    return metrics.paired_metric(f"{measure.split('_')[0]}_gain__{pair}{suffix}", units[:, 0], units[:, 1], seed)
