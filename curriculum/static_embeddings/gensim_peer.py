"""gensim's trainers on the same tokens, with the same budget. One worker: more make the result depend on the scheduler."""

from __future__ import annotations

from typing import Any

import torch

from curriculum.static_embeddings.settings import StaticEmbeddingsSettings
from curriculum.static_embeddings.words import Corpus


def gensim_model(corpus: Corpus, settings: StaticEmbeddingsSettings, *, seed: int, subwords: bool = False) -> Any:
    """A trained gensim ``Word2Vec``, or ``FastText`` with ``subwords``: skip-gram, the same negatives, window, noise and epochs.

    Its keep probability is sqrt(t / f) + t / f, so it keeps a little more of the text than the paper's formula.
    """
    from gensim.models import FastText, Word2Vec
    from gensim.models.word2vec import MAX_WORDS_IN_BATCH

    # of a longer list, a book for one, it would read no more than this and say nothing
    sentences = [text[at : at + MAX_WORDS_IN_BATCH] for text in corpus.sentences for at in range(0, len(text), MAX_WORDS_IN_BATCH)]
    shared = {
        "vector_size": settings.dimensions, "window": settings.window, "min_count": 1, "sample": settings.subsample, "seed": seed,
        "alpha": settings.learning_rate, "min_alpha": settings.minimum_learning_rate, "sg": 1, "negative": settings.negatives,
        "ns_exponent": settings.noise_power, "epochs": settings.epochs, "workers": 1,
    }
    if subwords:
        grams = {"min_n": settings.minimum_gram, "max_n": settings.maximum_gram, "bucket": settings.buckets}
        return FastText(sentences=sentences, **shared, **grams)
    return Word2Vec(sentences=sentences, **shared)


def vectors_of(model: Any, corpus: Corpus) -> torch.Tensor:
    """The model's vectors [V, D] in the order of the corpus's words."""
    return torch.from_numpy(model.wv.vectors[[model.wv.key_to_index[word] for word in corpus.words]].copy())
