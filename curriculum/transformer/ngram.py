"""Interpolated Kneser-Ney n-grams (Kneser and Ney, 1995; Chen and Goodman, 1999): what a language model has to beat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

Context = tuple[int, ...]


class KneserNey:
    """An n-gram model over token ids. Every probability is positive, and they sum to one over the vocabulary."""

    def __init__(self, order: int, vocab_size: int, discount: float = 0.75) -> None:
        if order < 1 or not 0 < discount < 1:
            raise ValueError("order must be at least 1 and the discount between 0 and 1")
        self.order, self.vocab_size, self.discount = order, vocab_size, discount
        self._counts: list[dict[Context, dict[int, int]]] = []
        self._totals: list[dict[Context, int]] = []

    def fit(self, sequences: Sequence[Sequence[int]]) -> KneserNey:
        """Count. The highest order counts occurrences, the lower ones in how many contexts an n-gram continues."""
        grams: set[Context] = set()
        highest: dict[Context, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for ids in sequences:
            ids = tuple(int(i) for i in ids)
            for end in range(self.order - 1, len(ids)):
                highest[ids[end - self.order + 1 : end]][ids[end]] += 1
        grams = {(*context, token) for context, row in highest.items() for token in row}
        levels = [highest]
        for _ in range(self.order - 1):
            lower: dict[Context, dict[int, int]] = defaultdict(lambda: defaultdict(int))
            grams_below = set()
            for gram in grams:
                lower[gram[1:-1]][gram[-1]] += 1
                grams_below.add(gram[1:])
            levels.append(lower)
            grams = grams_below
        self._counts = [dict(level) for level in reversed(levels)]
        self._totals = [{context: sum(row.values()) for context, row in level.items()} for level in self._counts]
        return self

    def probability(self, context: Context, token: int) -> float:
        """P(token | the last order - 1 tokens of ``context``)."""
        p = 1.0 / self.vocab_size
        for length in range(self.order):
            if length > len(context):
                break
            history = tuple(context[len(context) - length :])
            row = self._counts[length].get(history)
            if row is None:
                break  # longer histories contain this one, so they are unseen too
            total = self._totals[length][history]
            p = max(row.get(token, 0) - self.discount, 0.0) / total + self.discount * len(row) / total * p
        return p

    def nats(self, ids: Sequence[int]) -> np.ndarray:
        """-log P of each token after the first, given up to order - 1 tokens before it: float64 [len(ids) - 1]."""
        ids = tuple(int(i) for i in ids)
        starts = (max(0, end - self.order + 1) for end in range(1, len(ids)))
        return -np.log([self.probability(ids[s:end], ids[end]) for end, s in enumerate(starts, 1)])
