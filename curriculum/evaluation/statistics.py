"""Intervals for rates and means, and paired comparison of two runs over the same examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a binomial rate (Clopper and Pearson, 1934). ``(0, 1)`` for ``n == 0``."""
    from scipy.stats import beta

    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in [0, n], got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def clopper_pearson_upper(successes: int, n: int, level: float = 0.95) -> float:
    """One-sided upper bound of a binomial rate: 5 of 50 gives 0.199."""
    from scipy.stats import beta

    if n == 0 or successes == n:
        return 1.0
    return float(beta.ppf(level, successes + 1, n - successes))


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of a few independent runs [n]; NaNs for fewer than two."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    if values.size < 2:
        return float("nan"), float("nan")
    half = float(t.ppf((1 + level) / 2, values.size - 1) * values.std(ddof=1) / values.size**0.5)
    return float(values.mean()) - half, float(values.mean()) + half


def bootstrap_mean(scores: np.ndarray, *, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``scores`` [n]; NaNs for an empty array."""
    scores = np.asarray(scores, dtype=float)
    if scores.size == 0:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):  # one row at a time: [resamples, n] at once would be gigabytes for large n
        means[i] = scores[rng.integers(0, scores.size, scores.size)].mean()
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedComparison:
    """Mean of ``new - old`` over the same examples, with its paired bootstrap interval."""

    difference: float
    low: float
    high: float
    n: int


def paired_bootstrap(new: np.ndarray, old: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> PairedComparison:
    """Compare two score arrays [n] aligned by example (Koehn, 2004). Raises ValueError when shapes differ or n is 0."""
    new, old = np.asarray(new, dtype=float), np.asarray(old, dtype=float)
    if new.shape != old.shape or new.size == 0:
        raise ValueError(f"paired scores must have one non-empty shape, got {new.shape} and {old.shape}")
    low, high = bootstrap_mean(new - old, seed=seed, resamples=resamples)
    return PairedComparison(float((new - old).mean()), low, high, int(new.size))
