"""Batches of windows of like length: nothing is lost, and never more is padded than in batches of random order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curriculum.reading.batches import padded_tokens, padding_share, plan, questions_seen
from curriculum.reading.fitting import Schedule
from curriculum.reading.reader import Window

lengths = st.lists(st.integers(5, 60), min_size=1, max_size=80)


@given(lengths, st.integers(1, 8), st.integers(1, 3), st.integers(1, 4))
def test_every_window_is_seen_once_an_epoch(lengths: list[int], batch: int, epochs: int, pool: int) -> None:
    order = [w for b in plan(lengths, batch, epochs, seed=0, pool=pool) for w in b]
    for epoch in range(epochs):
        assert sorted(order[epoch * len(lengths) : (epoch + 1) * len(lengths)]) == list(range(len(lengths)))


@given(lengths, st.integers(1, 8), st.integers(0, 9), st.integers(1, 4))
def test_no_more_is_padded_than_in_random_order(lengths: list[int], batch: int, seed: int, pool: int) -> None:
    alike, random = plan(lengths, batch, 1, seed, pool=pool), plan(lengths, batch, 1, seed, pool=1)
    assert padded_tokens(lengths, alike) <= padded_tokens(lengths, random)
    assert max(map(len, alike)) <= batch and len(alike) == len(random)


def test_most_of_the_padding_goes_and_the_seed_fixes_the_order() -> None:
    drawn = np.random.default_rng(0).integers(20, 200, 700).tolist()
    alike, random = plan(drawn, 8, 1, seed=1), plan(drawn, 8, 1, seed=1, pool=1)
    assert padding_share(drawn, random) > 0.35 and padding_share(drawn, alike) < 0.07
    assert alike == plan(drawn, 8, 1, seed=1) != plan(drawn, 8, 1, seed=2)
    assert any(max(drawn[w] for w in a) > max(drawn[w] for w in b) for a, b in pairwise(alike))  # and an epoch is not sorted


def test_a_question_of_two_windows_is_counted_once_an_epoch() -> None:
    made = [Window(example, [0] * 5, [0] * 5, [None] * 5) for example in (0, 0, 1, 2)]
    assert questions_seen(made, [[[0], [2]], [[1]], [[3]], [[0, 1]]]) == [2, 2, 3, 4]


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 3), st.integers(1, 12))
def test_the_last_step_is_scored_and_the_rest_evenly(count: int, accumulate: int, epochs: int, evaluations: int) -> None:
    made = [Window(n, [0] * 5, [0] * 5, [None] * 5) for n in range(count)]
    schedule = Schedule.make(made, 2, accumulate=accumulate, epochs=epochs, evaluations=evaluations, seed=0)
    assert len(schedule.steps) - 1 in schedule.scored and schedule.scored <= set(range(len(schedule.steps)))
    assert len(schedule.scored) == min(evaluations, len(schedule.steps)) and schedule.questions[-1] == count * epochs
