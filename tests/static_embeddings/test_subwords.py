"""Character n-grams and their hashes, equal to gensim's; composed words; words never seen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.static_embeddings import parity, subwords
from curriculum.static_embeddings.models import train
from curriculum.static_embeddings.subwords import Bags, character_grams, compose, gram_hash, unseen_bags, word_bags
from curriculum.static_embeddings.words import build_corpus, words_of
from tests.static_embeddings.small import SETTINGS, texts


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 3))
def test_grams_and_hashes_are_gensims(word: str, minimum: int, more: int) -> None:
    from gensim.models.fasttext import ft_ngram_hashes

    assert parity.gram_mismatches([word], minimum, minimum + more) == 0
    rows = subwords.gram_rows(word, minimum, minimum + more, 1000)
    assert sorted(rows) == sorted(int(row) for row in ft_ngram_hashes(word, minimum, minimum + more, 1000))


def test_counts_of_grams() -> None:
    assert [len(character_grams(word, 3, 6)) for word in ("where", "unhappiness", "a")] == [14, 38, 1]
    assert "her" in character_grams("where", 3, 6) and "<her>" not in character_grams("where", 3, 6)


def test_a_hash_of_unsigned_bytes_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def textbook(gram: str) -> int:
        value = 2166136261
        for byte in gram.encode():
            value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
        return value

    assert textbook("abc") == gram_hash("abc") and textbook("при") != gram_hash("при")
    monkeypatch.setattr(parity, "gram_hash", textbook)
    assert parity.gram_mismatches([], 3, 6) > 0


def test_a_word_is_the_mean_of_its_rows() -> None:
    table, bags = torch.randn(10, 3), Bags.of([[1, 4, 4], [], [9]])
    found = compose(table, bags, torch.tensor([2, 0, 1, 0]))
    assert torch.allclose(found[0], table[9]) and torch.allclose(found[1], (table[1] + 2 * table[4]) / 3)
    assert not found[2].any() and torch.equal(found[1], found[3])
    known = word_bags(["where", "there"], 3, 6, 100)
    rows, _, sizes = known.take(torch.tensor([1]))
    assert rows[0] == 1 and int(sizes) == 15 and int(rows[1:].min()) >= 2


def test_an_unseen_form_lies_near_its_topic() -> None:
    corpus = build_corpus([words_of(text) for text in texts()], 2, frozenset({"anchoring", "melodys"}))
    made = train("fasttext", corpus, SETTINGS, 0, lambda line: None)["fasttext"]
    theirs = train("gensim_fasttext", corpus, SETTINGS, 0, lambda line: None)["gensim_fasttext"]
    for model in (made, theirs):
        assert model.compose is not None
        sea, music = model.compose(["anchoring", "melodys"])
        near = [[corpus.words[int(i)] for i in torch.cosine_similarity(v[None], model.words_VD).topk(6).indices] for v in (sea, music)]
        assert sum(word.startswith(("harbour", "anchor", "sailor", "vessel", "captain", "lighthouse")) for word in near[0]) >= 5
        assert sum(word.startswith(("violin", "melody", "rhythm", "concert", "singer", "trumpet")) for word in near[1]) >= 5
    assert unseen_bags(["anchoring"], len(corpus.words), 3, 6, 100).rows.min() >= len(corpus.words)
