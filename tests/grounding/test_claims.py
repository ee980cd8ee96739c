"""Sentences, windows, statements, rewrites and the training pairs made of them."""

from __future__ import annotations

import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.errors import DataError
from curriculum.grounding.claims import claims_of, statement
from curriculum.grounding.rewriting import generalise, keep_meaning, negate, reverse, swap_name, swap_number
from curriculum.grounding.sentences import sentences, windows
from curriculum.grounding.synthesis import distractor, training_groups

TEXT = (
    "The river Seine is 777 km long. It flows through Paris, e.g. past the Louvre (a museum). Usually it can be crossed by boat "
    "when the water is low. Lyon lies on the Rhone, which is 813 km long."
)
QA = pd.DataFrame(
    {
        "context": [TEXT, TEXT],
        "question": ["How long is the Seine?", "Which city does the Seine flow through?"],
        "answers": [["777 km"], ["Paris"]],
        "answer_starts": [[TEXT.index("777")], [TEXT.index("Paris")]],
        "split": ["train", "train"],
    }
)


def test_sentences_keep_abbreviations_and_split_lists() -> None:
    assert len(sentences(TEXT)) == 4
    assert sentences("See Lewis et al. They wrote it. \n\n- one\n- two") == ["See Lewis et al. They wrote it.", "- one", "- two"]
    assert sentences(" ") == []


@given(st.lists(st.integers(1, 12), max_size=12), st.integers(1, 30), st.integers(0, 2))
def test_windows_lose_no_sentence_and_keep_their_bound(sizes: list[int], words: int, overlap: int) -> None:
    parts = [" ".join(["Word"] + ["word"] * (n - 1)) + f" s{i}." for i, n in enumerate(sizes)]
    made = windows(" ".join(parts), words, overlap)
    for part in parts:
        assert any(part in window for window in made)
    assert all(len(w.split()) <= words or len(sentences(w)) == 1 for w in made)


def test_statements() -> None:
    assert statement("What is the capital of France?", "Paris") == "The capital of France is Paris."
    assert statement("How many layers are there in BERT-base?", "12") == "12 layers are there in BERT-base."
    assert statement("Why does it fail?", "the cache is full.") == "Why does it fail? the cache is full."
    assert claims_of("What is it?", "") == []
    assert claims_of("What is it?", "It is red. It is blue.") == ["It is red.", "It is blue."]


def test_rewrites_change_what_they_say_they_change() -> None:
    rng = random.Random(0)
    changed = swap_number("The Seine is 777 km long.", rng, ["813"])
    assert changed is not None and changed.startswith("The Seine is ") and " 777 " not in changed
    assert swap_number("No figure.", rng, ["813"]) is None
    swapped = swap_name("It flows through Paris.", rng, ["Then comes Lyon and Rouen."])
    assert swapped in {"It flows through Lyon.", "It flows through Rouen."}
    assert negate("It can be crossed.", rng, []) == "It cannot be crossed."
    assert negate("It is not long.", rng, []) == "It is long."
    assert negate("It cannot fail.", rng, []) == "It can fail."
    assert reverse("It is longer before noon.", rng, []) == "It is longer after noon."
    assert generalise("Usually it works.", rng, []) == "Always it works."
    assert generalise("It is slow when the cache is full.", rng, []) == "It is always slow."
    assert generalise("It works.", rng, []) is None


def test_keep_meaning_keeps_numbers_and_polarity() -> None:
    for seed in range(50):
        kept = keep_meaning("If the cache is full, the model uses 12 layers (all of them).", random.Random(seed))
        assert "12 layers" in kept and "not" not in kept and "cache is full" in kept


def test_training_groups_pair_a_supported_with_an_unsupported_claim() -> None:
    groups = training_groups(QA, words=60, per_example=6, seed=1)
    assert groups == training_groups(QA, words=60, per_example=6, seed=1)
    assert groups != training_groups(QA, words=60, per_example=6, seed=2)
    for group in groups:
        (passage, good), (other, bad) = group.pairs
        assert passage == other and good != bad and group.labels == (1.0, 0.0)
    claims = {g.pairs[0][1]: g.pairs[1][1] for g in groups}
    answered = claims["The Seine flow through Paris."]
    assert answered.startswith("The Seine flow through ") and "Paris" not in answered


def test_distractor_is_of_the_same_kind() -> None:
    rng = random.Random(0)
    assert distractor("777 km", sentences(TEXT), rng) == "813 km"
    name = distractor("Paris", sentences(TEXT), rng)
    assert name is not None and name[0].isupper() and "Paris" not in name
    assert distractor("777 km", ["No figures here."], rng) is None


def test_no_pairs_is_an_error() -> None:
    with pytest.raises(DataError, match="no training pair"):
        training_groups(QA.assign(context="Short.", answers=[[], []]), words=20, per_example=1, seed=0)
