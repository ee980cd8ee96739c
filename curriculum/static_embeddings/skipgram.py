"""Skip-gram with negative sampling, by its analytic gradient: word2vec over single rows, fastText over bags of rows.

Cost of a pair with k negatives: 6 (k + 1) D FLOPs and 2 (k + 2) rows of 4 D bytes, so memory is the limit. A step is a batch of pairs
whose gradients are summed, which is word2vec's step a pair with vectors that are stale by a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from curriculum.static_embeddings.sampling import Noise, skipgram_pairs
from curriculum.static_embeddings.settings import StaticEmbeddingsSettings
from curriculum.static_embeddings.subwords import Bags, compose, word_bags
from curriculum.static_embeddings.words import Corpus


@dataclass(frozen=True)
class Vectors:
    """Trained vectors of the vocabulary [V, D]; for fastText also the ``table`` [V + buckets, D] that composes words, and their bags."""

    words_VD: torch.Tensor
    losses: list[float]
    table_RD: torch.Tensor | None = None
    bags: Bags | None = None


def sgns_loss(v_BD: torch.Tensor, targets_BKD: torch.Tensor, real_BK: torch.Tensor) -> torch.Tensor:
    """Sum over pairs of -log sigmoid(v.u) - sum over noise of log sigmoid(-v.n): a scalar.

    ``targets_BKD`` holds the context first, then the noise; a noise word that is the context (``real_BK`` False) does not count.
    """
    scores_BK = torch.einsum("bd,bkd->bk", v_BD, targets_BKD)
    signs = torch.ones(scores_BK.shape[1], dtype=scores_BK.dtype)
    signs[1:] = -1
    return -(F.logsigmoid(scores_BK * signs) * real_BK).sum()


def sgns_gradients(
    v_BD: torch.Tensor, targets_BKD: torch.Tensor, real_BK: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Analytic gradients of :func:`sgns_loss`: by the centre vectors [B, D], and by the targets as coefficients [B, K] of ``v``."""
    # products and sums: at 2,048 x 6 x 64, batched matrix products take 2 to 5 times as long for these thin matrices
    slope_BK = torch.linalg.vecdot(targets_BKD, v_BD[:, None]).sigmoid_()
    slope_BK[:, 0] -= 1
    slope_BK *= real_BK
    return (targets_BKD * slope_BK[:, :, None]).sum(dim=1), slope_BK


def with_noise(contexts_B: torch.Tensor, noise_BN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(targets [B, 1 + N], real [B, 1 + N]): the context, then its noise; noise that equals the context is not real, as in word2vec."""
    real_BK = torch.ones(len(contexts_B), 1 + noise_BN.shape[1])
    real_BK[:, 1:] = noise_BN != contexts_B[:, None]
    return torch.cat([contexts_B[:, None], noise_BN], dim=1), real_BK


def sgns_step(
    table_RD: torch.Tensor, context_VD: torch.Tensor, bags: Bags | None, centres_B: torch.Tensor, targets_BK: torch.Tensor,
    real_BK: torch.Tensor, rate: float,
) -> None:
    """One step of gradient descent on both tables, in place. ``bags`` None: a centre is its own row.

    With bags, every row of a bag takes the word's whole gradient, as in both reference implementations: the word, which is their mean,
    then moves by exactly that gradient. The gradient by a row would be that divided by the size of the bag.
    """
    if bags is None:
        words, place = centres_B, None
        v_BD = table_RD.index_select(0, centres_B)
    else:
        words, place = centres_B.unique(return_inverse=True)
        v_BD = compose(table_RD, bags, words).index_select(0, place)
    flat = targets_BK.reshape(-1)
    targets_BKD = context_VD.index_select(0, flat).view(*targets_BK.shape, -1)
    step_BD, slope_BK = sgns_gradients(v_BD, targets_BKD, real_BK)
    context_VD.index_add_(0, flat, (slope_BK[:, :, None] * v_BD[:, None]).view(len(flat), -1), alpha=-rate)
    if bags is None:
        table_RD.index_add_(0, centres_B, step_BD, alpha=-rate)
        return
    step_UD = torch.zeros(len(words), step_BD.shape[1]).index_add_(0, place, step_BD)
    rows, _, sizes = bags.take(words)
    table_RD.index_add_(0, rows, step_UD.repeat_interleave(sizes, 0), alpha=-rate)


def initial_table(rows: int, dimensions: int, generator: torch.Generator) -> torch.Tensor:
    """Uniform in (-1/2, 1/2) / D, as in word2vec: [rows, D]."""
    return (torch.rand(rows, dimensions, generator=generator) - 0.5) / dimensions


def train_skipgram(
    corpus: Corpus, settings: StaticEmbeddingsSettings, *, seed: int, subwords: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Vectors:
    """Train on ``corpus`` for the epochs of ``settings``; ``subwords`` makes it fastText. ``losses`` are nats a pair, one an epoch."""
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    size = len(corpus.words)
    bags = word_bags(corpus.words, settings.minimum_gram, settings.maximum_gram, settings.buckets) if subwords else None
    table_RD = initial_table(size + settings.buckets * subwords, settings.dimensions, generator)
    context_VD = torch.zeros(size, settings.dimensions)
    noise, losses = Noise.of(corpus.counts, settings.noise_power), []
    for epoch in range(settings.epochs):
        centres, contexts = map(torch.from_numpy, skipgram_pairs(corpus, settings.window, settings.subsample, rng))
        for start in range(0, len(centres), settings.batch_pairs):
            part = slice(start, start + settings.batch_pairs)
            done = (epoch + start / len(centres)) / settings.epochs
            rate = settings.learning_rate + (settings.minimum_learning_rate - settings.learning_rate) * done
            drawn = noise.draw((len(centres[part]), settings.negatives), generator)
            sgns_step(table_RD, context_VD, bags, centres[part], *with_noise(contexts[part], drawn), rate)
        losses.append(_loss(table_RD, context_VD, bags, centres, contexts, noise, settings, generator))
        progress(f"epoch {epoch + 1} of {settings.epochs}: {losses[-1]:.4f} nats a pair")
    words_VD = table_RD if bags is None else compose(table_RD, bags, torch.arange(size))
    return Vectors(words_VD, losses, table_RD if subwords else None, bags)


def _loss(
    table_RD: torch.Tensor, context_VD: torch.Tensor, bags: Bags | None, centres: torch.Tensor, contexts: torch.Tensor, noise: Noise,
    settings: StaticEmbeddingsSettings, generator: torch.Generator, pairs: int = 20_000,
) -> float:
    """Mean nats a pair over the first ``pairs`` of the epoch, whose order is random."""
    centres, contexts = centres[:pairs], contexts[:pairs]
    v_BD = table_RD[centres] if bags is None else compose(table_RD, bags, centres)
    targets, real = with_noise(contexts, noise.draw((len(contexts), settings.negatives), generator))
    return float(sgns_loss(v_BD, context_VD[targets], real)) / len(centres)
