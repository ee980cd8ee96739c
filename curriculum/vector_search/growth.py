"""How latency, reading and memory grow with the number of vectors: fitted exponents, with intervals where they were timed."""

from __future__ import annotations

from typing import Any

import numpy as np

from curriculum.results import Metric
from curriculum.vector_search.kinds import KINDS

_RESAMPLES = 500


def slope(sizes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The exponent b of ``values`` ~ a * ``sizes`` ^ b, fitted by least squares of the logarithms; ``values`` [..., sizes] gives [...]."""
    x = np.log(sizes) - np.log(sizes).mean()
    return np.log(values) @ x / (x @ x)


def latency_slopes(sizes: dict[int, Any], seed: int) -> dict[str, np.ndarray]:
    """The exponent of the median milliseconds a query, a kind each: first as measured, then over resampled queries. [1 + resamples]"""
    ordered = sorted(sizes)
    ms = {kind: np.array([sizes[size]["kinds"][kind]["ms"] for size in ordered]) for kind in KINDS}
    queries = ms["flat"].shape[1]
    rng = np.random.default_rng(seed)
    drawn = [np.arange(queries), *(rng.integers(0, queries, queries) for _ in range(_RESAMPLES))]  # the same of every kind and size: paired
    return {kind: np.array([slope(np.array(ordered), np.median(own[:, rows], axis=1)) for rows in drawn]) for kind, own in ms.items()}


def exponent_metrics(sizes: dict[int, Any], seed: int) -> list[Metric]:
    """``read_exponent``, ``memory_exponent`` and ``latency_exponent`` of each kind, and how far the graph's latency lies below the flat one's."""
    ordered, found = sorted(sizes), []
    for kind in KINDS:
        for name, field in (("read", "read_bytes"), ("memory", "bytes")):
            value = slope(np.array(ordered), np.array([float(sizes[size]["kinds"][kind][field]) for size in ordered]))
            found.append(Metric(name=f"{name}_exponent__{kind}", value=float(value), n=len(ordered), higher_is_better=False))
    slopes = latency_slopes(sizes, seed)
    slopes["gap"] = slopes["flat"] - slopes["hnsw"]
    for kind, own in slopes.items():
        low, high = np.percentile(own[1:], [2.5, 97.5])
        name = "latency_exponent_gap" if kind == "gap" else f"latency_exponent__{kind}"
        interval = {"low": float(low), "high": float(high), "n": len(ordered)}
        found.append(Metric(name=name, value=float(own[0]), **interval, higher_is_better=kind == "gap", deterministic=False))
    return found
