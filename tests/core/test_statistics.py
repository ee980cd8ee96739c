"""Intervals against known values, and paired comparison against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp

from curriculum.evaluation.statistics import bootstrap_mean, clopper_pearson, clopper_pearson_upper, mean_interval, paired_bootstrap
from curriculum.results import Metric


@given(st.integers(0, 60), st.integers(0, 60))
def test_clopper_pearson_equals_scipys_exact_interval(successes: int, failures: int) -> None:
    n = successes + failures
    low, high = clopper_pearson(successes, n)
    if n == 0:
        assert (low, high) == (0.0, 1.0)
        return
    reference = binomtest(successes, n).proportion_ci(method="exact")
    assert low == pytest.approx(reference.low, abs=1e-9) and high == pytest.approx(reference.high, abs=1e-9)


def test_five_wrong_of_fifty_has_an_upper_bound_of_a_fifth() -> None:
    assert clopper_pearson_upper(5, 50) == pytest.approx(0.199, abs=1e-3)


def test_more_successes_than_trials_is_an_error() -> None:
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(3, 2)


def test_the_bootstrap_interval_holds_the_mean_and_repeats_with_its_seed() -> None:
    scores = np.random.default_rng(0).normal(0.5, 0.1, 300)
    low, high = bootstrap_mean(scores, seed=1)
    assert low < scores.mean() < high and high - low == pytest.approx(4 * 0.1 / np.sqrt(300), rel=0.2)
    assert bootstrap_mean(scores, seed=1) == (low, high)


def test_pairing_finds_a_difference_that_marginal_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(0.5, 0.3, 200)
    new = old + 0.03 + rng.normal(0, 0.02, 200)
    found = paired_bootstrap(new, old)
    assert found.low > 0 and bootstrap_mean(new)[0] < bootstrap_mean(old)[1]


def test_scores_of_different_examples_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="one non-empty shape"):
        paired_bootstrap(np.ones(3), np.ones(4))


def test_the_interval_of_a_few_runs_is_students() -> None:
    runs = np.array([1.0, 2.0, 4.0])
    known = ttest_1samp(runs, 0.0).confidence_interval(0.95)
    assert mean_interval(runs) == pytest.approx((known.low, known.high))
    assert all(np.isnan(end) for end in mean_interval(runs[:1])), "one run has no spread"


def test_a_difference_has_a_sign_only_where_its_interval_leaves_zero() -> None:
    found = [Metric(name="gain", value=0.1, low=low, high=high).sign() for low, high in ((0.01, 0.2), (-0.2, -0.01), (-0.1, 0.3), (0.0, 0.2), (None, None))]
    assert found == [1, -1, 0, 0, 0]
