"""What skip-gram samples: words kept in the text, radii of windows, and noise words (Mikolov et al., 2013, arXiv 1310.4546)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from curriculum.static_embeddings.words import Corpus


def keep_probability(counts: np.ndarray, threshold: float) -> np.ndarray:
    """min(1, sqrt(t / f)) for each word [V], f being its share of the text. A threshold of 0 keeps everything."""
    if threshold == 0:
        return np.ones(len(counts))
    return np.minimum(1.0, np.sqrt(threshold * counts.sum() / counts))


def skipgram_pairs(corpus: Corpus, window: int, threshold: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One epoch's (centres [n], contexts [n]) in random order: subsampled first, then a radius from 1 to ``window`` for each centre.

    Subsampling before the windows widens them, as in word2vec. No window leaves its text.
    """
    kept = rng.random(len(corpus.ids)) < keep_probability(corpus.counts, threshold)[corpus.ids]
    ids, text_of = corpus.ids[kept], corpus.text_of[kept]
    radius = rng.integers(1, window + 1, len(ids))
    centres, contexts = [], []
    for distance in range(1, window + 1):
        near, far = slice(None, -distance), slice(distance, None)
        together = text_of[near] == text_of[far]
        for centre, context in ((near, far), (far, near)):
            reached = together & (radius[centre] >= distance)
            centres.append(ids[centre][reached])
            contexts.append(ids[context][reached])
    order = rng.permutation(sum(map(len, centres)))
    return np.concatenate(centres)[order], np.concatenate(contexts)[order]


@dataclass(frozen=True)
class Noise:
    """Draws words with probability proportional to count^power, by the alias method (Walker, 1977): two look-ups a draw."""

    cut_V: torch.Tensor
    alias_V: torch.Tensor

    @classmethod
    def of(cls, counts: np.ndarray, power: float) -> Noise:
        """Prepare the tables [V]: each cell keeps its own word below ``cut`` and gives the rest to one alias."""
        weights = counts.astype(np.float64) ** power
        cut, alias = weights * (len(weights) / weights.sum()), np.arange(len(weights))
        poor, rich = [int(i) for i in np.flatnonzero(cut < 1)], [int(i) for i in np.flatnonzero(cut >= 1)]
        while poor and rich:
            giver, taker = rich[-1], poor.pop()
            alias[taker] = giver
            cut[giver] -= 1 - cut[taker]
            if cut[giver] < 1:
                poor.append(rich.pop())
        cut[poor + rich] = 1.0  # what rounding left over
        return cls(torch.from_numpy(cut).float(), torch.from_numpy(alias))

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Word ids of ``shape``, int64."""
        cell = torch.randint(len(self.cut_V), shape, generator=generator)
        own = torch.rand(shape, generator=generator) < self.cut_V[cell]
        return torch.where(own, cell, self.alias_V[cell])
