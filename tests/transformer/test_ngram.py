"""The n-grams equal nltk's interpolated Kneser-Ney."""

from __future__ import annotations

import itertools
from pydoc_data.topics import topics

import pytest
from nltk.lm.models import KneserNeyInterpolated

from curriculum.transformer.ngram import KneserNey

TEXT = [list(topics[name].encode()[:600]) for name in ("if", "while", "assert")]


def nltk_model(order: int, texts: list[list[int]], vocab_size: int, discount: float) -> KneserNeyInterpolated:
    """nltk's model over the same n-grams: every window of ``order`` tokens, and its endings.

    nltk ends the recursion with the plain continuation counts, Chen and Goodman (1999, 2.8) with the uniform distribution under them, as
    ours does; that last level is put under nltk's.
    """
    words = [[chr(token) for token in text] for text in texts]  # its vocabulary takes strings alone
    windows = [tuple(text[end - order : end]) for text in words for end in range(order, len(text) + 1)]
    kinds = len({window[-1] for window in windows})
    model = KneserNeyInterpolated(order, discount=discount)

    def unigram_score(word: str) -> float:
        count, total = model.estimator._continuation_counts(word)
        return max(count - discount, 0) / total + discount * kinds / total / vocab_size

    model.estimator.unigram_score = unigram_score
    model.fit([[window[-length:] for window in windows for length in range(1, order + 1)]], vocabulary_text=[chr(token) for token in range(vocab_size)])
    return model


@pytest.mark.parametrize(("order", "discount"), [(2, 0.75), (3, 0.75), (3, 0.4)])
def test_probabilities_equal_nltk_s(order: int, discount: float) -> None:
    symbols = {symbol: number for number, symbol in enumerate(sorted(set(itertools.chain(*TEXT))))}
    texts = [[symbols[byte] for byte in text] for text in TEXT]
    ours = KneserNey(order, len(symbols), discount).fit(texts[:2])
    theirs = nltk_model(order, texts[:2], len(symbols), discount)
    held_out = texts[2]
    for end in [*range(order, 60), 300, 400]:
        context = tuple(held_out[end - order + 1 : end])
        assert ours.probability(context, held_out[end]) == pytest.approx(theirs.score(chr(held_out[end]), tuple(map(chr, context))), rel=1e-9)
    other = KneserNey(order, len(symbols), discount + 0.05).fit(texts[:2])
    assert other.probability(context, held_out[end]) != pytest.approx(theirs.score(chr(held_out[end]), tuple(map(chr, context))), rel=1e-3)
