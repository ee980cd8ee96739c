"""Whether an index is what it says: every passage is in both legs, under its own id, and search finds what is asked for."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from curriculum.corpora.documents import text_digest
from curriculum.evaluation.statistics import bootstrap_mean, clopper_pearson
from curriculum.ingest.parts import read_batches
from curriculum.results import Metric, StudyResult
from curriculum.retrieval.bm25 import Bm25Index
from curriculum.retrieval.dense import DenseIndex, Encoder
from curriculum.retrieval.passages import contents
from curriculum.vector_search.scale import kth_best, recalls, rows_found

SAMPLE, WORDS, HITS = 100, 64, 10  # passages asked for, words of one that BM25 is asked, hits among which it must be
_SAME = 1e-3  # inner products that are nearer are of equal passages: encoded in other batches, cut at the encoder's length


def soundness(index: Path, passages: Path, name: str, encoder: Encoder, queries: list[str], *, seed: int) -> list[Metric]:
    """Of the folder of a corpus's index and the folder of its passages:

    ``passages_missing``: passages that a leg lacks, and what a leg holds beside them. ``found_again__LEG``: the share of a hundred passages,
    by hash, that each finds itself by its own words among BM25's first ten hits (the first tenth of a small corpus), or by its own vector
    with the score of that vector; one with the same title and text counts as itself. ``vector_recall``: see there.
    """
    table = pq.read_table(index / "passages.parquet").to_pandas()
    lexical, dense = Bm25Index(index / "bm25", name), DenseIndex(index / "dense", name)
    wanted = {pid for batch in read_batches(passages, ["passage_id"]) for pid in batch["passage_id"]}
    missing = abs(len(lexical) - len(wanted)) + len(wanted ^ set(dense.ids)) + len(wanted ^ set(table["passage_id"]))
    chosen = set(heapq.nsmallest(SAMPLE, wanted, key=text_digest))
    sample = pd.concat([b[b["passage_id"].isin(chosen)] for b in read_batches(passages, ["passage_id", "title", "section", "text", "digest"])])
    alike = table[table["digest"].isin(set(sample["digest"]))].groupby("digest")["passage_id"].agg(set)
    own = [alike.get(digest, {pid}) for pid, digest in zip(sample["passage_id"], sample["digest"], strict=True)]
    texts = contents(sample)
    vectors = encoder.passages(texts)
    by_words = lexical.search([" ".join(text.split()[:WORDS]) for text in texts], max(1, min(HITS, len(wanted) // 10)))
    by_vector = zip(dense.search(vectors, HITS), vectors, own, strict=True)
    return [
        Metric(name="passages_missing", value=float(missing), n=len(wanted), higher_is_better=False),
        _rate("found_again__bm25", np.array([any(pid in ids for pid, _ in hits) for hits, ids in zip(by_words, own, strict=True)])),
        _rate("found_again__dense", np.array([_itself(hits, float(vector @ vector), ids) for hits, vector, ids in by_vector])),
        vector_recall(dense, encoder.queries(queries), seed=seed),
    ]


def vector_recall(dense: DenseIndex, queries: np.ndarray, *, seed: int) -> Metric:
    """Of the ten nearest passages of each query [queries, dimension] by an exact scan, the share that the index finds: 1 where it is flat."""
    k, vectors = min(HITS, len(dense.ids)), dense.vectors
    shares = recalls(rows_found(dense.search(queries, k), dense.ids, k), vectors, queries, kth_best(vectors, queries, k))
    low, high = bootstrap_mean(shares, seed=seed)
    return Metric(name="vector_recall", value=float(shares.mean()), low=low, high=high, n=len(shares))


def _itself(hits: list[tuple[str, float]], score: float, ids: set[str]) -> bool:
    """Whether one of ``ids`` has the inner product ``score`` of the vector with itself. Where all hits are as near, more may be: it is open."""
    if len(hits) == HITS and hits[-1][1] >= score - _SAME:
        return True
    return any(pid in ids and abs(given - score) <= _SAME for pid, given in hits)


def hit_rate(report: StudyResult) -> Metric:
    """``hit_rate_at_10``: the share of test queries for which the fusion chosen on dev has something relevant among its first ten."""
    return _rate("hit_rate_at_10", report.per_example[f"mrr__{report.settings['fusion']}"].to_numpy() >= 0.1)


def _rate(name: str, hits: np.ndarray) -> Metric:
    low, high = clopper_pearson(int(hits.sum()), len(hits))
    return Metric(name=name, value=float(hits.mean()), low=low, high=high, n=len(hits))
