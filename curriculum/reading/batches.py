"""Training windows, and batches of windows of like length: what is padded is computed and thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from curriculum.reading.reader import Window, labelled, windows

POOL = 16  # batches that are sorted together: enough that their windows are alike, few enough that an epoch stays shuffled


def training_windows(tokenizer: Any, examples: pd.DataFrame, *, max_length: int, stride: int) -> list[Window]:
    """Labelled windows of the examples. Of an example's windows without the answer only the first is kept: more of them
    teach little beyond saying nothing."""
    pairs = list(zip(examples["question"], examples["context"], strict=True))
    answers = [(int(s[0]), a[0]) for s, a in zip(examples["answer_starts"], examples["answers"], strict=True)]
    kept: list[Window] = []
    without: set[int] = set()
    for window in windows(tokenizer, pairs, max_length=max_length, stride=stride):
        start, text = answers[window.example]
        window = labelled(window, start, start + len(text))
        if window.end == 0 and window.example in without:
            continue
        if window.end == 0:
            without.add(window.example)
        kept.append(window)
    return kept


def plan(lengths: Sequence[int], batch_size: int, epochs: int, seed: int, *, pool: int = POOL) -> list[list[int]]:
    """Batches of places in ``lengths``: every epoch a fresh shuffle, sorted within windows of ``pool`` batches, the batches shuffled.

    ``seed`` alone fixes the order. ``pool=1`` leaves the shuffle as it is. Every place stands once in an epoch.
    """
    order: list[list[int]] = []
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        shuffled = rng.permutation(len(lengths)).tolist()
        pools = [shuffled[i : i + pool * batch_size] for i in range(0, len(lengths), pool * batch_size)]
        batches = [batch for places in pools for batch in _alike(places, lengths, batch_size)]
        order += [batches[i] for i in rng.permutation(len(batches))]
    return order


def _alike(places: list[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """``places`` cut into batches with the least padding that batches of these sizes can have.

    Sorted and cut is the least when all are full. One that is not may stand anywhere in the order, so each place is tried: the
    sum of (size x longest) is least for some cut of the sorted order, since exchanging two windows of any other never adds to it.
    """
    ordered = sorted(places, key=lambda place: lengths[place])
    rest = len(ordered) % batch_size
    if not rest:
        return _cut(ordered, batch_size)
    options = [
        [*_cut(ordered[:at], batch_size), ordered[at : at + rest], *_cut(ordered[at + rest :], batch_size)]
        for at in range(0, len(ordered), batch_size)
    ]
    return min(options, key=lambda batches: padded_tokens(lengths, batches))


def _cut(ordered: list[int], batch_size: int) -> list[list[int]]:
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def padded_tokens(lengths: Sequence[int], batches: list[list[int]]) -> int:
    """Tokens that are computed when every window of a batch is padded to its longest."""
    return sum(len(batch) * max(lengths[place] for place in batch) for batch in batches)


def padding_share(lengths: Sequence[int], batches: list[list[int]]) -> float:
    """Share of the computed tokens that is padding, in [0, 1)."""
    return 1 - sum(lengths[place] for batch in batches for place in batch) / padded_tokens(lengths, batches)


def questions_seen(made: Sequence[Window], steps: list[list[list[int]]]) -> list[int]:
    """How many questions have been trained on by the end of each step; one counts again in each epoch, but not for each window."""
    seen: set[tuple[int, int]] = set()
    counts, trained = [], 0
    for step in steps:
        for place in (place for batch in step for place in batch):
            seen.add((trained // len(made), made[place].example))
            trained += 1
        counts.append(len(seen))
    return counts
