"""Metrics of per-question scores: a mean with its interval, a paired difference, and the low end of one that a bar can hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.results import Metric


def mean_metric(name: str, scores: pd.Series | np.ndarray, seed: int) -> Metric:
    """The mean of ``scores`` [n] with the bootstrap's 95% interval."""
    values = np.asarray(scores, dtype=float)
    low, high = bootstrap_mean(values, seed=seed)
    return Metric(name=name, value=float(values.mean()), n=len(values), low=low, high=high)


def paired_metric(name: str, new: pd.Series | np.ndarray, old: pd.Series | np.ndarray, seed: int) -> Metric:
    """The mean difference of two scores [n] of the same questions, new minus old, with the paired bootstrap's 95% interval."""
    found = paired_bootstrap(np.asarray(new), np.asarray(old), seed=seed)
    return Metric(name=name, value=found.difference, low=found.low, high=found.high, n=found.n)


def low_metric(name: str, metric: Metric) -> Metric:
    """The lower end of the interval of ``metric`` as a metric of its own."""
    assert metric.low is not None
    return Metric(name=name, value=metric.low, n=metric.n)
