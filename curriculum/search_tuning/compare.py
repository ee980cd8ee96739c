"""The chosen setting against the default one: paired on test, and what of the gain on dev was optimism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.results import Metric
from curriculum.search_tuning.bench import Asked

RESAMPLES = 2000


@dataclass(frozen=True)
class Side:
    """The scores [questions] of both settings on the questions of one split, and the questions' ``weights`` [questions], of mean 1."""

    asked: Asked
    chosen: np.ndarray
    default: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        return self.weighted(self.chosen - self.default)

    def weighted(self, scores: np.ndarray) -> np.ndarray:
        """Scores whose mean is the mean of the tracks' means."""
        return scores * self.asked.weights


def sign_flip_p(gain: np.ndarray, seed: int) -> float:
    """Two-sided p of a mean paired difference [questions] by random flips of signs (Fisher's randomisation; Smucker et al., 2007)."""
    from scipy.stats import permutation_test

    if not gain.any():
        return 1.0
    found = permutation_test(
        (gain, np.zeros_like(gain)), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True, n_resamples=9999,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def gap(name: str, dev: np.ndarray, test: np.ndarray, seed: int) -> Metric:
    """Mean of ``dev`` minus mean of ``test``, two samples of different questions, with its bootstrap interval."""
    rng = np.random.default_rng(seed)
    drawn = [[x[rng.integers(0, len(x), len(x))].mean() for x in (dev, test)] for _ in range(RESAMPLES)]
    low, high = np.percentile(np.subtract(*np.transpose(drawn)), [2.5, 97.5])
    value = float(dev.mean() - test.mean())
    return Metric(name=name, value=value, low=float(low), high=float(high), n=len(dev) + len(test), higher_is_better=False)


def comparison(dev: Side, test: Side, seed: int) -> list[Metric]:
    """``test_gain`` (chosen minus default, paired), its lower end and p, ``optimism``, ``gain_optimism``, and each setting's scores."""
    gains = {name: paired_bootstrap(side.gain, np.zeros_like(side.gain), seed=seed) for name, side in (("test", test), ("dev", dev))}
    found = [Metric(name=f"{name}_gain", value=g.difference, low=g.low, high=g.high, n=g.n) for name, g in gains.items()]
    found += [
        Metric(name="test_gain_low", value=gains["test"].low, n=gains["test"].n),
        Metric(name="test_gain_p", value=sign_flip_p(test.gain, seed), n=gains["test"].n, higher_is_better=False),
        gap("optimism", dev.weighted(dev.chosen), test.weighted(test.chosen), seed),
        gap("gain_optimism", dev.gain, test.gain, seed),
    ]
    for split, side in (("test", test), ("dev", dev)):
        for setting in ("chosen", "default"):
            scores = side.weighted(getattr(side, setting))
            low, high = bootstrap_mean(scores, seed=seed)
            name = f"ndcg_at_10__{setting}" if split == "test" else f"dev_ndcg_at_10__{setting}"
            found.append(Metric(name=name, value=float(scores.mean()), low=low, high=high, n=len(scores)))
    return found


def by_track(dev: Side, test: Side, seed: int) -> pd.DataFrame:
    """split, track, questions, both settings' mean nDCG@10, the paired gain and its interval."""
    rows = []
    for split, side in (("dev", dev), ("test", test)):
        tracks = side.asked.questions["track"].to_numpy()
        for track in sorted(set(tracks)):
            new, old = side.chosen[tracks == track], side.default[tracks == track]
            g = paired_bootstrap(new, old, seed=seed)
            rows.append(
                {"split": split, "track": track, "questions": g.n, "default": old.mean(), "chosen": new.mean(), "gain": g.difference,
                 "low": g.low, "high": g.high}
            )  # fmt: skip
    return pd.DataFrame(rows)
