"""Words, windows, subsampling and noise, each against counting by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from curriculum.errors import DataError
from curriculum.static_embeddings.sampling import Noise, keep_probability, skipgram_pairs
from curriculum.static_embeddings.words import build_corpus, cut_words, words_of


def test_words_and_the_cut() -> None:
    assert words_of("Don't call f_1(x2), naïve Слово") == ["don't", "call", "f", "x", "naïve", "слово"]
    assert cut_words(["a b c", "d e", "f"], 4) == [["a", "b", "c"], ["d"]]


def test_a_corpus_keeps_texts_apart_and_leaves_words_out() -> None:
    corpus = build_corpus([["b", "a", "b", "rare"], ["a", "gone", "b", "gone"]], 2, frozenset({"gone"}))
    assert corpus.words == ("b", "a") and list(corpus.counts) == [3, 2]
    assert list(corpus.ids) == [0, 1, 0, 1, 0] and list(corpus.text_of) == [0, 0, 0, 1, 1]
    assert corpus.sentences == [["b", "a", "b"], ["a", "b"]]
    with pytest.raises(DataError, match="lower minimum_count"):
        build_corpus([["a", "b"]], 2)


def test_keep_probabilities_are_the_papers() -> None:
    counts = np.array([5_000_000, 10, 94_999_990])
    keep = keep_probability(counts, 1e-5)
    assert keep[0] == pytest.approx(0.01414, abs=1e-5) and keep[1] == 1.0
    assert (keep_probability(counts, 0) == 1).all()


def test_pairs_are_those_of_the_windows() -> None:
    corpus = build_corpus([["a", "b", "c"], ["d", "e"]], 1)
    centres, contexts = skipgram_pairs(corpus, 1, 0, np.random.default_rng(0))
    seen = Counter((corpus.words[i], corpus.words[j]) for i, j in zip(centres, contexts, strict=True))
    assert seen == Counter([("a", "b"), ("b", "a"), ("b", "c"), ("c", "b"), ("d", "e"), ("e", "d")])


def test_near_words_are_seen_more_often_and_frequent_ones_thinned() -> None:
    corpus = build_corpus([[f"w{chr(97 + i % 20)}" for i in range(20_000)]], 1)
    centres, contexts = skipgram_pairs(corpus, 5, 0, np.random.default_rng(0))
    distance = np.array([ord(word[1]) for word in corpus.words])
    apart = Counter(int(gap) for gap in (distance[contexts] - distance[centres]) % 20)
    rates = [apart[n] / 20_000 for n in (1, 2, 3, 4, 5)]
    assert rates == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2], abs=0.02)
    thinned, _ = skipgram_pairs(corpus, 5, 0.05 / 4, np.random.default_rng(0))  # each word's share is 0.05, so half are kept
    assert len(thinned) == pytest.approx(len(centres) / 2, rel=0.03)


@pytest.mark.parametrize("power", [0.75, 0.0, 1.0])
def test_noise_is_drawn_by_the_power_of_the_counts(power: float) -> None:
    counts = np.array([1000, 300, 100, 30, 10, 1])
    drawn = Noise.of(counts, power).draw((400_000,), torch.Generator().manual_seed(0))
    rates = torch.bincount(drawn, minlength=6).double().numpy() / 400_000
    expected = counts**power / (counts**power).sum()
    assert np.abs(rates - expected).max() < 5 * np.sqrt(0.25 / 400_000)
