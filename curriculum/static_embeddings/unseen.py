"""Words taken out of the text, to ask for afterwards: are their composed vectors near what the words mean?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from curriculum.static_embeddings.scoring import neighbours
from curriculum.static_embeddings.words import Corpus

Vectorise = Callable[[list[str]], torch.Tensor]


def stems(words: Iterable[str]) -> dict[str, str]:
    """Porter's stem of each word, by gensim's port of it."""
    from gensim.parsing.porter import PorterStemmer

    stemmer = PorterStemmer()
    return {word: stemmer.stem(word) for word in words}


def choose_unseen(corpus: Corpus, count: int, protected: frozenset[str], seed: int, least: int = 10, length: int = 5) -> tuple[str, ...]:
    """At most ``count`` words to take out, one a stem: of ``length`` letters and ``least`` occurrences or more, with another word of
    their stem left in the text, and none of ``protected`` (the words that the test sets ask for)."""
    of_stem: dict[str, list[str]] = defaultdict(list)
    for word, stem in stems(corpus.words).items():
        of_stem[stem].append(word)
    rng, found = np.random.default_rng(seed), []
    for stem in sorted(of_stem):
        fit = [w for w in of_stem[stem] if len(w) >= length and corpus.counts[corpus.index[w]] >= least and w not in protected]
        if len(of_stem[stem]) > 1 and fit:
            found.append(fit[int(rng.integers(len(fit)))])
    return tuple(sorted(found[i] for i in rng.permutation(len(found))[:count]))


def meaning_neighbours(words: tuple[str, ...], full: Corpus, vectors_VD: torch.Tensor, corpus: Corpus, count: int) -> list[list[int]]:
    """For each word the ids in ``corpus`` of its nearest words of another stem, by vectors of the ``full`` text that know the word."""
    ids = torch.tensor([full.index[word] for word in words])
    shared = torch.tensor([full.index[word] for word in corpus.words])
    return neighbours(vectors_VD[ids], vectors_VD[shared], count, _same_stem(words, corpus)).tolist()


def _same_stem(words: tuple[str, ...], corpus: Corpus) -> list[list[int]]:
    of_stem: dict[str, list[int]] = defaultdict(list)
    for word, stem in stems(corpus.words).items():
        of_stem[stem].append(corpus.index[word])
    return [of_stem[stem] for stem in stems(words).values()]


def probe_unseen(
    words: tuple[str, ...], corpus: Corpus, vectorise: Vectorise, words_VD: torch.Tensor, meaning: list[list[int]], count: int
) -> dict[str, Any]:
    """A list each, by word: whether the vector is not zero; whether a word of its stem is among the ``count`` nearest; and the share
    of its ``meaning`` neighbours (as :func:`meaning_neighbours`) found when words of its stem are left aside.

    The last asks for nothing that spelling alone gives: its reference is a model without subwords that has read the word in its places.
    """
    composed, same = vectorise(list(words)), _same_stem(words, corpus)
    near = neighbours(composed, words_VD, count).tolist()
    other = neighbours(composed, words_VD, count, same).tolist()
    return {
        "nonzero": [bool(norm > 0) for norm in composed.norm(dim=1)],
        "stem": [bool(set(found) & set(of_stem)) for found, of_stem in zip(near, same, strict=True)],
        "meaning": [len(set(found) & set(true)) / len(true) for found, true in zip(other, meaning, strict=True)],
        "nearest": [[corpus.words[i] for i in found[:5]] for found in near],
    }


def stem_chance(words: tuple[str, ...], corpus: Corpus, count: int) -> float:
    """The rate at which ``count`` words drawn at random hold one of the stem, a mean over ``words``."""
    return float(np.mean([1 - (1 - count / len(corpus.words)) ** len(ids) for ids in _same_stem(words, corpus)]))
