"""Vector sets of a given size, the exact neighbours in them, and recall against those."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TIE = 1e-6  # inner products of unit vectors that are nearer than float32's rounding are one score
_BLOCK = 8192


def grown(vectors: np.ndarray, size: int, jitter: float, seed: int) -> np.ndarray:
    """``size`` unit vectors: real ones in a random order, and after the last of them synthetic ones. A smaller set is a prefix of a larger.

    A synthetic vector is a random real one plus ``jitter`` times the difference of two others, scaled to unit length: its noise has
    the covariance of the real vectors, not that of a ball, so neighbourhoods keep their intrinsic dimension. It stands for no text.

    ``vectors``: float32 [real, dimension]. Returns float32 [size, dimension].
    """
    order = np.random.default_rng(seed).permutation(len(vectors))
    if size <= len(vectors):
        return np.ascontiguousarray(vectors[order[:size]])
    rng = np.random.default_rng([seed, 1])
    base, plus, minus = rng.integers(0, len(vectors), (size - len(vectors), 3)).T  # row by row: the draws of a smaller set are the first
    made = vectors[base] + jitter * (vectors[plus] - vectors[minus])
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return np.concatenate([vectors[order], made.astype(np.float32)])


def kth_best(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """The ``k``-th best inner product of each query by numpy in float64, over all ``vectors`` a block at a time: [queries]."""
    wide, best = queries.astype(np.float64), np.empty((len(queries), 0))
    for at in range(0, len(vectors), _BLOCK):
        best = np.concatenate([best, wide @ vectors[at : at + _BLOCK].astype(np.float64).T], axis=1)
        best = np.partition(best, -min(k, best.shape[1]), axis=1)[:, -k:]
    return best.min(axis=1)


def rows_found(hits: Sequence[Sequence[tuple[str, float]]], ids: Sequence[str], k: int) -> np.ndarray:
    """The place in ``ids`` of the first ``k`` hits of each query, int [queries, k]; -1 where there are fewer, or it is none of them."""
    rows = {pid: row for row, pid in enumerate(ids)}
    return np.array([[rows.get(pid, -1) for pid, _ in ([*own] + [("", 0.0)] * k)[:k]] for own in hits])


def recalls(found: np.ndarray, vectors: np.ndarray, queries: np.ndarray, least: np.ndarray) -> np.ndarray:
    """The share of the k nearest that ``found`` has, a query each: [queries].

    ``found`` holds rows [queries, k] of ``vectors``; -1 is a missing one, and a repeated one counts once. A row is among the k nearest
    when its exact inner product reaches ``least``, the k-th best: which of two equal ones comes first is open.
    """
    own = np.einsum("qkd,qd->qk", vectors[found].astype(np.float64), queries.astype(np.float64))
    near = (own >= least[:, None] - TIE) & (found >= 0)
    return np.array([len(set(rows[hit].tolist())) for rows, hit in zip(found, near, strict=True)], dtype=float) / found.shape[1]
