"""Flat, HNSW and IVF-PQ over the passages' vectors and over larger synthetic sets: recall, latency, memory, and how they grow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from curriculum.artifacts import DirectoryArtifact, IndexArtifact
from curriculum.cells import Cells
from curriculum.corpora.documents import text_digest
from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.reranking.scoring import judgements, ndcg_at_10
from curriculum.results import Metric, StudyResult
from curriculum.retrieval.dense import DenseIndex
from curriculum.vector_search.growth import exponent_metrics
from curriculum.vector_search.kinds import KINDS, choose_kind, index_bytes, scan_ms
from curriculum.vector_search.measure import rankings, size_cell
from curriculum.vector_search.plots import draw_growth, draw_sweep
from curriculum.vector_search.scale import grown, kth_best, recalls, rows_found
from curriculum.vector_search.settings import VectorSearchSettings

TAIL = 0.5  # a query that keeps less than this share of its neighbours


@dataclass(frozen=True)
class Asked:
    """The collection that is studied: its vectors [passages, dimension] with their ids, and questions with their vectors."""

    collection: str
    ids: list[str]
    vectors: np.ndarray
    tracks: pd.DataFrame
    queries: np.ndarray

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.vectors.tobytes() + self.queries.tobytes()).hexdigest()

    def mean(self, per_query: np.ndarray, seed: int) -> tuple[float, float, float, int]:
        """Mean over queries, its interval, and the number of questions, whose phrasings are one unit in it."""
        units = pd.Series(per_query).groupby(self.tracks["group"].to_numpy()).mean().to_numpy()
        return float(units.mean()), *bootstrap_mean(units, seed=seed), len(units)

    def paired(self, new: np.ndarray, old: np.ndarray, seed: int) -> Any:
        """The paired difference of two scores of every query, likewise."""
        units = pd.DataFrame({"new": new, "old": old}).groupby(self.tracks["group"].to_numpy()).mean()
        return paired_bootstrap(units["new"].to_numpy(), units["old"].to_numpy(), seed=seed)


def asked_of(embeddings: DirectoryArtifact, tracks: pd.DataFrame, settings: VectorSearchSettings, encode: Callable[[list[str]], np.ndarray]) -> Asked:
    """The largest collection that has test queries, and its test queries by hash up to ``queries``; ``encode`` gives their vectors.

    Raises:
        DataError: there are no test queries, or vectors and ids differ in number.
    """
    test, passages = tracks[tracks["split"] == "test"], embeddings.facts["passages"]
    if test.empty:
        raise DataError("retrieval_tracks has no queries of split 'test'; there is nothing to ask the indexes")
    collection = max(sorted(set(test["collection"])), key=lambda name: passages.get(name, 0))
    own = test[test["collection"] == collection]
    own = own.assign(order=[text_digest(q) for q in own["query_id"]]).sort_values("order").head(settings.queries).reset_index(drop=True)
    folder = embeddings.path / collection
    vectors = load_file(folder / "vectors.safetensors")["vectors"].numpy()
    ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
    if len(ids) != len(vectors):
        raise DataError(f"{folder} holds {len(vectors)} vectors for {len(ids)} ids; materialise passage_embeddings again")
    return Asked(collection, ids, vectors, own, encode(own["query"].tolist()))


def vector_index_study(
    embeddings: DirectoryArtifact,
    dense: IndexArtifact,
    tracks: pd.DataFrame,
    settings: VectorSearchSettings,
    *,
    encode: Callable[[list[str]], np.ndarray],
    seed: int,
    cells: Cells,
    progress: Callable[[str], None],
) -> StudyResult:
    """Every kind of index at every size, asked the test questions; ``encode`` turns them into vectors by the encoder of the passages.

    Raises:
        DataError: no test queries, vectors that are not of unit length, or fewer passages than a codebook has entries.
    """
    asked = asked_of(embeddings, tracks, settings, encode)
    known, sizes = [settings.model_dump(mode="json"), asked.digest, seed], {}
    for size in settings.sizes:
        def compute(size: int = size) -> dict[str, Any]:
            vectors = grown(asked.vectors, size, settings.jitter, seed)
            return size_cell(vectors, asked.queries, settings, seed, sweep=size == settings.sizes[-1])

        sizes[size] = cells.get(f"{size} vectors", known, compute)
        progress(f"{size} vectors: " + ", ".join(f"{k} recall {np.mean(v['recall']):.3f}" for k, v in sizes[size]["kinds"].items()))
    real = cells.get("the passages", known, lambda: rankings(asked.vectors, asked.queries, settings, seed))
    ndcg, last = _ndcg(asked, real), sizes[settings.sizes[-1]]
    table = _table(sizes, asked.vectors.shape[1], settings)
    return StudyResult(
        study="vector_index_study",
        metrics=[
            _served(asked, dense, settings, seed), *_recall_metrics(asked, sizes, seed), *exponent_metrics(sizes, seed),
            *_size_metrics(table), *_ndcg_metrics(asked, ndcg, seed),
        ],
        settings=settings.model_dump(mode="json"),
        seeds=[seed],
        remarks=_remarks(asked, settings),
        per_example=_per_example(asked, last, ndcg),
        tables={"sizes": table, "sweep": pd.DataFrame(last["sweep"]), "choices": choices(asked.vectors.shape[1], settings)},
        plots={"growth": draw_growth(table), "sweep": draw_sweep(pd.DataFrame(last["sweep"]), settings.sizes[-1])},
    )  # fmt: skip


def _served(asked: Asked, dense: IndexArtifact, settings: VectorSearchSettings, seed: int) -> Metric:
    """Recall of the index that is searched, by its passage ids, against numpy over the vectors that it was built from."""
    k = min(settings.k, len(asked.ids))
    found = rows_found(DenseIndex(dense.path, asked.collection).search(asked.queries, k), asked.ids, k)
    exact = recalls(found, asked.vectors, asked.queries, kth_best(asked.vectors, asked.queries, k))
    mean, low, high, n = asked.mean(exact, seed)
    return Metric(name="served_recall", value=mean, low=low, high=high, n=n)


def _recall_metrics(asked: Asked, sizes: dict[int, Any], seed: int) -> list[Metric]:
    found, last = [], sizes[max(sizes)]["kinds"]
    for kind in KINDS:
        worst = min(sizes, key=lambda size: np.mean(sizes[size]["kinds"][kind]["recall"]))
        mean, low, high, n = asked.mean(np.array(sizes[worst]["kinds"][kind]["recall"]), seed)
        found.append(Metric(name=f"recall_lowest__{kind}", value=mean, low=low, high=high, n=n))
        tail = float(np.mean(np.array(last[kind]["recall"]) < TAIL))
        found.append(Metric(name=f"tail_share__{kind}", value=tail, n=len(asked.tracks), higher_is_better=False))
    gain = asked.paired(np.array(last["ivf_pq_rescored"]["recall"]), np.array(last["ivf_pq"]["recall"]), seed)
    found.append(Metric(name="rescoring_gain", value=gain.difference, low=gain.low, high=gain.high, n=gain.n))
    return [*found, Metric(name="rescoring_gain_low", value=gain.low, n=gain.n)]


def _table(sizes: dict[int, Any], dimension: int, settings: VectorSearchSettings) -> pd.DataFrame:
    rows = []
    for size, cell in sizes.items():
        for kind, own in cell["kinds"].items():
            p50, p95, p99 = np.percentile(own["ms"], [50, 95, 99])
            line = {"kind": kind, "vectors": size, "recall": np.mean(own["recall"]), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
            work = {name: own[name] for name in ("bytes", "read_bytes", "build_seconds")}
            rows.append({**line, **work, "expected_bytes": index_bytes(kind, size, dimension, settings)})
    return pd.DataFrame(rows)


def _size_metrics(table: pd.DataFrame) -> list[Metric]:
    last = table[table["vectors"] == table["vectors"].max()].set_index("kind")
    wrong = float((table["bytes"] / table["expected_bytes"] - 1).abs().max())
    shares = [
        Metric(name=f"size_of_flat__{kind}", value=float(last.loc[kind, "bytes"] / last.loc["flat", "bytes"]), higher_is_better=False)
        for kind in KINDS[1:]
    ]
    speed = float(last.loc["flat", "bytes"] / last.loc["flat", "p50_ms"] / 1e6)
    scan = Metric(name="scan_gb_s", value=speed, unit="GB/s", deterministic=False)
    return [Metric(name="bytes_error", value=wrong, n=len(table), higher_is_better=False), *shares, scan]


def _ndcg(asked: Asked, real: dict[str, Any]) -> dict[str, np.ndarray]:
    """nDCG@10 of every query by each kind over the real passages alone: [queries] a kind."""
    ids = asked.tracks["query_id"].astype(str).tolist()
    judged = judgements(asked.tracks["relevant_ids"].tolist(), asked.tracks["grades"].tolist(), ids)
    found = {}
    for kind, rows in real.items():
        hits = {q: [(asked.ids[row], 0.0) for row in own if row >= 0] for q, own in zip(ids, rows, strict=True)}
        scored = ndcg_at_10(hits, judged)
        found[kind] = np.array([scored[q] for q in ids])
    return found


def _ndcg_metrics(asked: Asked, ndcg: dict[str, np.ndarray], seed: int) -> list[Metric]:
    mean, low, high, n = asked.mean(ndcg["flat"], seed)
    found = [Metric(name="ndcg_at_10__flat", value=mean, low=low, high=high, n=n)]
    for kind in KINDS[1:]:
        lost = asked.paired(ndcg[kind], ndcg["flat"], seed)
        found.append(Metric(name=f"ndcg_change__{kind}", value=lost.difference, low=lost.low, high=lost.high, n=lost.n))
    return found


def _per_example(asked: Asked, last: dict[str, Any], ndcg: dict[str, np.ndarray]) -> pd.DataFrame:
    recall = {f"recall__{kind}": own["recall"] for kind, own in last["kinds"].items()}
    return pd.DataFrame({"example_id": asked.tracks["query_id"], **recall, **{f"ndcg_at_10__{kind}": own for kind, own in ndcg.items()}})


def choices(dimension: int, settings: VectorSearchSettings) -> pd.DataFrame:
    """What :func:`choose_kind` chooses from a thousand to a billion vectors, and the arithmetic behind it."""
    rows = []
    for size in (10**power for power in range(3, 10)):
        kind = choose_kind(size, dimension, settings)
        in_memory = index_bytes("ivf_pq" if kind == "ivf_pq_rescored" else kind, size, dimension, settings)
        rows.append({"vectors": size, "kind": kind, "flat_scan_ms": scan_ms(size, dimension, settings), "memory_gb": in_memory / 1e9})
    return pd.DataFrame(rows)


def _remarks(asked: Asked, settings: VectorSearchSettings) -> list[str]:
    real = len(asked.vectors)
    return [
        f"Sets of more than {real} vectors are synthetic beyond the {real} passages of '{asked.collection}': a passage's vector plus "
        f"{settings.jitter} times the difference of two others, scaled to unit length. They keep the passages' covariance and stand for no text. "
        "A smaller set is a prefix of a larger one.",
        f"recall@{settings.k} is against numpy's exact scan in float64; scores nearer than 1e-6 are a tie. The queries are test questions, which "
        "are not distributed as passages are. recall_lowest is of the size where it is lowest.",
        f"tail_share: queries that keep less than half of their neighbours among {settings.sizes[-1]} vectors. A mean hides them.",
        "read_exponent is fitted to the bytes that a query reads, counted by faiss: it does not depend on what else the machine does, as "
        "latency_exponent does. Times are of one thread and a query at a time, the least of some passes; an interval resamples queries. A flat "
        "index's latency may grow faster than its size: the small ones fit a cache.",
        "ndcg_change is on the real passages alone, against the flat index: what a user loses, where recall says what the index loses.",
        f"A flat index is chosen while a scan at {settings.scan_gb_s:g} GB/s takes {settings.scan_ms:g} ms at most (scan_gb_s is what was measured, "
        f"from a cache where the set fits one), then HNSW while it fits {settings.memory_gb:g} GB, then re-scored codes.",
    ]
