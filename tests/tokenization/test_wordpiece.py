"""The from-scratch WordPiece against the tokenizers library: the same words, tokens and, given its free order, vocabulary."""

from __future__ import annotations

import random
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from curriculum.tokenization.training import END, UNKNOWN, train_tokenizer
from curriculum.tokenization.wordpiece import PREFIX, encode, encode_word, join, learn_vocabulary, words_of

NOTES = [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parents[2] / "notes").glob("*.md"))]
FIXTURES = {
    "reference": [topics[name] for name in ("assert", "for", "while", "try", "numbers", "strings")],
    "notes": NOTES[:4],
    "repeats": ["aaaa aaaaa aaaaaaa", "-- --- ------- ----", "banana bananas anana nanan", "    \n\n\n        x"],
    "cyrillic": ["мама мыла раму, рама мыла маму", "токен токены токенов токену 😀😀😀"],
}
UNSEEN = ["", " \n\t", "Unseen words: naïve fac\u0327ade, 12345 + 678! Привет.", f"{UNKNOWN} {END} ##s", "e" * 100, "e" * 101]


def library(texts: list[str], size: int) -> tuple[Tokenizer, list[str]]:
    """The library's tokenizer, and its pieces in the order of their ids."""
    tokenizer = train_tokenizer("wordpiece", texts, size)
    ids = tokenizer.get_vocab()
    return tokenizer, sorted(ids, key=ids.__getitem__)


def continuing(pieces: list[str]) -> list[str]:
    return [piece for piece in pieces if piece.startswith(PREFIX) and len(piece) == len(PREFIX) + 1]


def library_words(text: str) -> list[str]:
    return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalizers.NFC().normalize_str(text))]


def settled(character: str) -> bool:
    """Whether both libraries' Unicode tables agree on this character: as a mark on others, as punctuation, as white space."""
    return all(words_of(text) == library_words(text) for text in (f"a{character}a", f"a\u0301{character}\u0323", f"a{character}\u0301\u0315"))


CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cn", "Co", "Cs")).filter(settled)


@pytest.mark.parametrize("name", FIXTURES)
def test_tokens_are_the_librarys(name: str) -> None:
    tokenizer, pieces = library(FIXTURES[name], 1000)
    vocabulary = set(pieces)
    for text in [*FIXTURES[name], *NOTES, *UNSEEN]:
        assert encode(text, vocabulary) == tokenizer.encode(text).tokens


@pytest.fixture(scope="module")
def trained() -> tuple[Tokenizer, set[str]]:
    tokenizer, pieces = library([*FIXTURES["reference"], *FIXTURES["cyrillic"]], 600)
    return tokenizer, set(pieces)


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(CHARACTERS, max_size=40), st.text("aeinrst th e.#м'\u0301\n", max_size=60)))
def test_tokens_are_the_librarys_on_any_text(text: str, trained: tuple[Tokenizer, set[str]]) -> None:
    tokenizer, vocabulary = trained
    assert words_of(text) == library_words(text)
    assert encode(text, vocabulary) == tokenizer.encode(text).tokens


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.sets(st.from_regex("(##)?[ab]{1,4}", fullmatch=True), max_size=8),
    word=st.text("ab", min_size=1, max_size=12), most=st.integers(1, 12),
)
def test_words_are_cut_as_the_library_cuts_them(pieces: set[str], word: str, most: int) -> None:
    ids = {piece: number for number, piece in enumerate(sorted(pieces | {UNKNOWN}))}
    reference = models.WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=most)
    assert encode_word(word, ids, max_characters=most) == [token.value for token in reference.tokenize(word)]


def test_the_longest_match_can_lead_to_a_dead_end() -> None:
    assert encode_word("abc", {"ab", "abc"}) == ["abc"] and encode_word("abcb", {"ab", "a", "##bcb", "abc"}) == [UNKNOWN]


def test_punctuation_is_the_librarys_but_for_what_is_newer() -> None:
    for block in (range(0x600), range(0x2000, 0x2E43), range(0x3000, 0x3100), range(0xFE00, 0xFFF0)):
        assert [hex(code) for code in block if not settled(chr(code))] == []
    assert words_of("a\u2e52a") == ["a", "\u2e52", "a"] and library_words("a\u2e52a") == ["a\u2e52a"], "U+2E52 is of Unicode 13"


@pytest.mark.parametrize("size", [300, 500, 1000])
@pytest.mark.parametrize("name", FIXTURES)
def test_the_vocabulary_is_the_librarys_given_its_order_of_continuing_characters(name: str, size: int) -> None:
    _, expected = library(FIXTURES[name], size)
    assert learn_vocabulary(FIXTURES[name], size, (UNKNOWN, END), continuing(expected)) == expected
    assert len(expected) == size or name in {"repeats", "cyrillic"}, "the small fixtures run out of pairs"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc -é", min_size=1, max_size=25), min_size=1, max_size=6), st.integers(16, 40))
def test_the_vocabulary_is_the_librarys_on_texts_full_of_ties(texts: list[str], size: int) -> None:
    _, expected = library(texts, size)
    assert learn_vocabulary(texts, size, (UNKNOWN, END), continuing(expected)) == expected


def test_without_ties_no_order_matters_and_the_vocabulary_is_the_librarys() -> None:
    texts = ["the " * 16 + "cat " * 9 + "dog " * 5 + "hat " * 4 + "sun " * 3 + "then " * 2]
    _, expected = library(texts, 100)
    assert expected[-10:] == ["th", "the", "##at", "cat", "do", "dog", "hat", "su", "sun", "then"]
    order = sorted(continuing(expected))
    for seed in range(20):
        random.Random(seed).shuffle(order)
        ours = learn_vocabulary(texts, 100, (UNKNOWN, END), order)
        assert set(ours) == set(expected) and ours[-10:] == expected[-10:]


def test_with_ties_the_order_matters() -> None:
    texts = ["xab yba zab wba"]
    first, second = (learn_vocabulary(texts, 10, continuing=order) for order in (["##a", "##b"], ["##b", "##a"]))
    assert first[:7] == second[:7] and (first[-1], second[-1]) == ("##ab", "##ba")
    _, expected = library(texts, 11)
    assert expected[2:] == (first if continuing(expected) == ["##a", "##b"] else second)[1:]


def test_another_pair_can_make_a_piece_that_is_there() -> None:
    assert join(("un", "##do")) == "undo" and join(("##d", "##o")) == "##do"
    pieces = learn_vocabulary(["abc abc abd xbc"], 100)
    assert len(pieces) == len(set(pieces)) and {"abc", "abd", "xbc"} <= set(pieces)


def test_bad_arguments() -> None:
    for call, message in (
        (lambda: encode("a", {"a"}), "the vocabulary has no unknown token"),
        (lambda: encode("a", {"a", UNKNOWN}, max_characters=0), "max_characters is 0"),
        (lambda: learn_vocabulary(["abc"], 5), "a vocabulary of 5 cannot hold 1 special tokens and 5 characters"),
        (lambda: learn_vocabulary(["abc"], 20, continuing=["##b"]), "1 continuing characters were given in order; the words have 2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
