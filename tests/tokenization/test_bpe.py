"""The from-scratch BPE against the tokenizers library: the same merges, the same tokens, and every text back."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from curriculum.tokenization.bpe import _BYTE, apply_merge, decode, encode, learn_merges, words_of
from curriculum.tokenization.training import train_tokenizer

NOTES = sorted((Path(__file__).parents[2] / "notes").glob("*.md"))
FIXTURES = {
    "reference": [topics[name] for name in ("assert", "for", "while", "try", "numbers", "strings")],
    "notes": [path.read_text(encoding="utf-8") for path in NOTES[:4]],
    "repeats": ["aaaa aaaaa aaaaaaa", "-- --- ------- ----", "banana bananas anana nanan", "    \n\n\n        x"],
    "cyrillic": ["мама мыла раму, рама мыла маму", "токен токены токенов токену 😀😀😀"],
}


def library(texts: list[str], size: int) -> tuple[Tokenizer, list[tuple[str, str]]]:
    tokenizer = train_tokenizer("bpe", texts, size)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return tokenizer, [tuple(merge) for merge in merges]


@pytest.mark.parametrize("name", FIXTURES)
def test_merges_and_tokens_are_the_librarys(name: str) -> None:
    texts = FIXTURES[name]
    tokenizer, expected = library(texts, 257 + 400)
    ours = learn_merges(texts, len(expected))
    assert ours == expected
    assert len(ours) == 400 or name in {"repeats", "cyrillic"}, "the small fixtures run out of pairs"
    for text in [*texts, "Unseen words: naïve façade, 12345 + 678! Привет."]:
        assert encode(text, ours) == tokenizer.encode(text).tokens


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab c-\n", min_size=1, max_size=25), min_size=1, max_size=6))
def test_merges_are_the_librarys_on_texts_full_of_ties_and_repeats(texts: list[str]) -> None:
    _, expected = library(texts, 257 + 30)
    assert learn_merges(texts, len(expected)) == expected


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_every_text_comes_back(text: str) -> None:
    assert decode(encode(text, [("t", "h"), ("th", "e"), ("Ġ", "the")])) == text
    assert decode(words_of(text)) == text


# whether a code point that is assigned today is a letter does not change; two libraries may know different Unicode versions
@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cn", "Co", "Cs")), max_size=60))
def test_words_are_the_librarys(text: str) -> None:
    reference = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert words_of(text) == [word for word, _ in reference.pre_tokenize_str(text)]


def test_the_alphabet_is_the_librarys() -> None:
    assert sorted(_BYTE) == sorted(pre_tokenizers.ByteLevel.alphabet()) and set(_BYTE.values()) == set(range(256))


def test_merging_goes_from_left_to_right() -> None:
    assert apply_merge(list("aaaaa"), ("a", "a"), "aa") == ["aa", "aa", "a"]


def test_rare_pairs_are_not_merged() -> None:
    assert learn_merges(["ab ab cd"], 10, min_frequency=2) == [("a", "b"), ("Ġ", "ab")][:1]
