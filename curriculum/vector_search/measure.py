"""One set of vectors under every kind of index: recall against the exact neighbours, time, bytes. What comes back is JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from curriculum.vector_search.kinds import Kind, VectorIndex, build, one_thread
from curriculum.vector_search.scale import kth_best, recalls
from curriculum.vector_search.settings import VectorSearchSettings


def built(vectors: np.ndarray, settings: VectorSearchSettings, seed: int) -> dict[Kind, VectorIndex]:
    """Every kind over the same vectors; the codes are trained once, with and without re-scoring."""
    made: dict[Kind, VectorIndex] = {"flat": build("flat", vectors, settings, seed), "hnsw": build("hnsw", vectors, settings, seed)}
    rescored = build("ivf_pq_rescored", vectors, settings, seed)
    return made | {"ivf_pq": rescored.codes(), "ivf_pq_rescored": rescored}


def query_ms(indexes: Mapping[Kind, VectorIndex], queries: np.ndarray, k: int, repeats: int) -> dict[Kind, np.ndarray]:
    """Milliseconds of each query alone, one after another: the least of ``repeats`` passes, the kinds in turns. [queries] a kind."""
    spent = {kind: np.full(len(queries), np.inf) for kind in indexes}
    for _ in range(repeats):
        for kind, index in indexes.items():
            index.search(queries[:1], k)  # warms up
            for at in range(len(queries)):
                begun = time.perf_counter()
                index.search(queries[at : at + 1], k)
                spent[kind][at] = min(spent[kind][at], 1000 * (time.perf_counter() - begun))
    return spent


def size_cell(vectors: np.ndarray, queries: np.ndarray, settings: VectorSearchSettings, seed: int, *, sweep: bool) -> dict[str, Any]:
    """``kinds``: recall and milliseconds of each query, bytes, bytes read, seconds of building. ``sweep``: recall and time an effort."""
    with one_thread():
        indexes, least = built(vectors, settings, seed), kth_best(vectors, queries, settings.k)
        spent = query_ms(indexes, queries, settings.k, settings.repeats)
        kinds = {
            kind: {
                "recall": recalls(index.search(queries, settings.k), vectors, queries, least).tolist(), "ms": spent[kind].tolist(),
                "bytes": index.bytes(), "read_bytes": index.read_bytes(queries, settings.k), "build_seconds": index.seconds,
            }
            for kind, index in indexes.items()
        }  # fmt: skip
        return {"kinds": kinds, "sweep": _sweep(indexes, vectors, queries, least, settings) if sweep else []}


def _sweep(
    indexes: Mapping[Kind, VectorIndex], vectors: np.ndarray, queries: np.ndarray, least: np.ndarray, settings: VectorSearchSettings
) -> list[dict[str, Any]]:
    rows = []
    efforts: dict[Kind, tuple[int, ...]] = {
        "flat": (0,), "hnsw": settings.ef_sweep, "ivf_pq": settings.probe_sweep, "ivf_pq_rescored": settings.probe_sweep,
    }  # fmt: skip
    for kind, values in efforts.items():
        for value in values:
            index = indexes[kind].effort(value)
            found = recalls(index.search(queries, settings.k), vectors, queries, least)
            spent = query_ms({kind: index}, queries, settings.k, 1)[kind]
            p50, p95 = np.percentile(spent, [50, 95])
            measured = {"recall": float(found.mean()), "p50_ms": float(p50), "p95_ms": float(p95)}
            rows.append({"kind": kind, "effort": value, **measured, "read_bytes": index.read_bytes(queries, settings.k)})
    return rows


def rankings(vectors: np.ndarray, queries: np.ndarray, settings: VectorSearchSettings, seed: int) -> dict[str, Any]:
    """The rows that each kind returns: {kind: [queries, k]}."""
    with one_thread():
        return {kind: index.search(queries, settings.k).tolist() for kind, index in built(vectors, settings, seed).items()}
