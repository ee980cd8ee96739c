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

    def distribution(self, context: Context) -> np.ndarray:
        """P of every token after ``context``: float64 [vocabulary]."""
        p_V = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for length in range(min(self.order - 1, len(context)) + 1):
            history = tuple(context[len(context) - length :])
            row = self._counts[length].get(history)
            if row is None:
                break
            total = self._totals[length][history]
            p_V *= self.discount * len(row) / total
            p_V[list(row)] += (np.fromiter(row.values(), float, len(row)) - self.discount) / total
        return p_V

    def nats(self, ids: Sequence[int]) -> np.ndarray:
        """-log P of each token after the first, given up to order - 1 tokens before it: float64 [len(ids) - 1]."""
        ids = tuple(int(i) for i in ids)
        starts = (max(0, end - self.order + 1) for end in range(1, len(ids)))
        return -np.log([self.probability(ids[s:end], ids[end]) for end, s in enumerate(starts, 1)])


class BigramChain:
    """The bigram model read from both sides: the exact posterior of hidden tokens between known ones.

    As a Markov chain P(x_a .. x_b | left, right) is proportional to the product of the bigrams along the gap, so that a forward and a
    backward vector over the vocabulary give every marginal (Rabiner, 1989, III.A). A gap at the start of a text has the unigrams on its
    left, one at the end has nothing on its right.
    """

    def __init__(self, bigrams: KneserNey) -> None:
        if bigrams.order != 2:
            raise ValueError(f"a bigram chain needs a model of order 2, not {bigrams.order}")
        self.start_V = bigrams.distribution(())
        self.next_VV = np.stack([bigrams.distribution((token,)) for token in range(bigrams.vocab_size)])

    def nats(self, ids: Sequence[int], hidden: np.ndarray, *, in_order: bool = False) -> np.ndarray:
        """-log P of the tokens of ``ids`` [T] where ``hidden`` [T] is True, each given all that are not: float64 [hidden].

        ``in_order``: given as well the hidden tokens to its left, as a decoder is that writes them one after another.
        """
        ids_T, found = np.asarray(ids), []
        for gap in _gaps(hidden):
            found.append(self._gap(ids_T, gap, in_order))
        return np.concatenate(found) if found else np.zeros(0)

    def _gap(self, ids_T: np.ndarray, gap: range, in_order: bool) -> np.ndarray:
        behind = [np.ones_like(self.start_V) if gap.stop == len(ids_T) else self.next_VV[:, ids_T[gap.stop]]]
        for _ in gap[1:]:
            behind.append(self.next_VV @ behind[-1])
        ahead_V, nats = self.start_V if gap.start == 0 else self.next_VV[ids_T[gap.start - 1]], []
        for place, behind_V in zip(gap, reversed(behind), strict=True):
            posterior_V = ahead_V * behind_V
            nats.append(-np.log(posterior_V[ids_T[place]] / posterior_V.sum()))
            ahead_V = self.next_VV[ids_T[place]] if in_order else ahead_V @ self.next_VV
        return np.array(nats)


def _gaps(hidden: np.ndarray) -> list[range]:
    """The runs of True in ``hidden`` [T], from left to right."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.asarray(hidden, dtype=int), [0]))))
    return [range(int(start), int(stop)) for start, stop in zip(edges[0::2], edges[1::2], strict=True)]
