"""The compared models under one name each: how they are trained, and what vectors they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from curriculum.static_embeddings.gensim_peer import gensim_model, vectors_of
from curriculum.static_embeddings.glove import train_glove
from curriculum.static_embeddings.settings import StaticEmbeddingsSettings
from curriculum.static_embeddings.skipgram import initial_table, train_skipgram
from curriculum.static_embeddings.subwords import compose, unseen_bags
from curriculum.static_embeddings.unseen import Vectorise
from curriculum.static_embeddings.words import Corpus

SUBWORD = ("fasttext", "gensim_fasttext")
# what is trained once a seed; GloVe gives its word table alone beside the sum of both tables
TRAININGS = {
    "skipgram": ("skipgram",), "glove": ("glove", "glove_w"), "fasttext": ("fasttext",),
    "gensim_skipgram": ("gensim_skipgram",), "gensim_fasttext": ("gensim_fasttext",),
}
MODELS = tuple(name for names in TRAININGS.values() for name in names)


@dataclass(frozen=True)
class Trained:
    """Vectors [V, D] of the vocabulary; ``compose`` makes those of words outside it, ``untrained`` from the table before training."""

    words_VD: torch.Tensor
    losses: list[float]
    compose: Vectorise | None = None
    untrained: tuple[torch.Tensor, Vectorise] | None = None


def train(training: str, corpus: Corpus, settings: StaticEmbeddingsSettings, seed: int, progress: Callable[[str], None]) -> dict[str, Trained]:
    """Train one of ``TRAININGS``: the models it gives, by name."""
    if training == "skipgram":
        made = train_skipgram(corpus, settings, seed=seed, progress=progress)
        return {training: Trained(made.words_VD, made.losses)}
    if training == "glove":
        both, alone = train_glove(corpus, settings.glove, settings.dimensions, seed=seed, progress=progress)
        return {"glove": Trained(both.words_VD, both.losses), "glove_w": Trained(alone, both.losses)}
    if training == "fasttext":
        return {training: _fasttext(corpus, settings, seed, progress)}
    subwords = training == "gensim_fasttext"
    model = gensim_model(corpus, settings, seed=seed, subwords=subwords)
    composed = (lambda words: torch.from_numpy(np.stack([model.wv.get_vector(word) for word in words]))) if subwords else None
    return {training: Trained(vectors_of(model, corpus), [], composed)}


def _fasttext(corpus: Corpus, settings: StaticEmbeddingsSettings, seed: int, progress: Callable[[str], None]) -> Trained:
    made = train_skipgram(corpus, settings, seed=seed, subwords=True, progress=progress)
    grams = (settings.minimum_gram, settings.maximum_gram, settings.buckets)

    def over(table_RD: torch.Tensor) -> Vectorise:
        return lambda words: compose(table_RD, unseen_bags(words, len(corpus.words), *grams), torch.arange(len(words)))

    assert made.table_RD is not None and made.bags is not None
    start_RD = initial_table(len(made.table_RD), settings.dimensions, torch.Generator().manual_seed(seed))
    before_VD = compose(start_RD, made.bags, torch.arange(len(corpus.words)))
    return Trained(made.words_VD, made.losses, over(made.table_RD), (before_VD, over(start_RD)))


def shuffled(corpus: Corpus, seed: int) -> Corpus:
    """The same words in random order over the same texts: every count is kept, every context is lost."""
    return replace(corpus, ids=np.random.default_rng(seed).permutation(corpus.ids))
