"""SQuAD's scores: the official script's behaviour, held by a transcription of its definition and by known cases."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.reading.metrics import exact_match, f1, normalise


def official_normalize(s: str) -> str:
    """The normalisation of evaluate-v1.1.py, step by step as published."""
    lowered = s.lower()
    without_punctuation = "".join(ch for ch in lowered if ch not in set(string.punctuation))
    without_articles = re.sub(r"\b(a|an|the)\b", " ", without_punctuation)
    return " ".join(without_articles.split())


def official_f1(prediction: str, gold: str) -> float:
    """f1_score of evaluate-v1.1.py."""
    predicted, truth = official_normalize(prediction).split(), official_normalize(gold).split()
    common = Counter(predicted) & Counter(truth)
    same = sum(common.values())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(truth)
    return (2 * precision * recall) / (precision + recall)


words = st.text(alphabet="aAnNthe .,'!-é7", max_size=30)


@given(words, st.lists(words, min_size=1, max_size=3))
def test_scores_equal_the_official_scripts(prediction: str, golds: list[str]) -> None:
    assert normalise(prediction) == official_normalize(prediction)
    assert f1(prediction, golds) == pytest.approx(max(official_f1(prediction, g) for g in golds))
    assert exact_match(prediction, golds) == float(any(official_normalize(prediction) == official_normalize(g) for g in golds))


def test_known_cases() -> None:
    assert exact_match("The Eiffel Tower!", ["eiffel tower"]) == 1.0
    assert f1("in the year 1889", ["1889"]) == pytest.approx(0.5)
    assert f1("", ["1889"]) == 0.0 and f1("anything", []) == 0.0
