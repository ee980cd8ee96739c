"""MinHash against exact Jaccard, clusters, splits that keep near-duplicates together, and the leakage check."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.corpora.deduplicate import MinHash, bands_for, clusters, jaccard, leakage, shingles, similar_pairs
from curriculum.corpora.splits import split_by_cluster

WORDS = [f"word{i}" for i in range(400)]
SHARES = {"train": 0.6, "test": 0.4}


def passage(seed: int, length: int = 120) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def changed(text: str, at: int, to: str = "changed") -> str:
    words = text.split()
    return " ".join([*words[:at], to, *words[at + 1 :]])


@settings(max_examples=60, deadline=None)
@given(shared=st.integers(0, 300), only_a=st.integers(0, 300), only_b=st.integers(0, 300), seed=st.integers(0, 2**32 - 1))
def test_the_estimate_is_within_its_error_of_exact_jaccard(shared: int, only_a: int, only_b: int, seed: int) -> None:
    if shared + only_a == 0 or shared + only_b == 0:
        return
    pool = np.unique(np.random.default_rng(seed).integers(0, 1 << 64, shared + only_a + only_b, dtype=np.uint64))
    np.random.default_rng(seed + 1).shuffle(pool)
    a, b = np.sort(pool[: shared + only_a]), np.sort(np.concatenate([pool[:shared], pool[shared + only_a :]]))
    exact = jaccard(a, b)
    assert exact == len(set(a.tolist()) & set(b.tolist())) / len(set(a.tolist()) | set(b.tolist()))
    hasher = MinHash(512, seed=7)
    error = abs(hasher.estimate(hasher.signature(a), hasher.signature(b)) - exact)
    assert error <= 6 * math.sqrt(max(exact * (1 - exact), 1 / 512) / 512)


def test_estimates_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for seed in range(40):
        pool = rng.integers(0, 1 << 64, 300, dtype=np.uint64)
        hasher = MinHash(128, seed=seed)
        errors.append(hasher.estimate(hasher.signature(pool[:200]), hasher.signature(pool[100:])) - 1 / 3)
    assert abs(np.mean(errors)) < 4 * math.sqrt(2 / 9 / (128 * 40))


def test_shingles_ignore_case_and_punctuation_but_tell_texts_without_words_apart() -> None:
    assert np.array_equal(shingles("One, two: THREE four five six"), shingles("one two three four five six"))
    assert not np.array_equal(shingles("!!!"), shingles("???"))
    assert shingles("").size == 1 and shingles("three words only").size == 1
    assert jaccard(shingles("a b c d e f"), shingles("f e d c b a")) == 0


def test_signatures_of_long_texts_do_not_depend_on_how_they_are_chunked() -> None:
    items = np.unique(np.random.default_rng(0).integers(0, 1 << 64, 10_000, dtype=np.uint64))
    hasher = MinHash(8)
    direct = (hasher.factors[:, None] * items[None, :] + hasher.offsets[:, None]).min(axis=1)
    assert np.array_equal(hasher.signature(items), direct)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_bands_overlook_almost_nothing_at_the_threshold(threshold: float) -> None:
    bands, rows = bands_for(128, threshold)
    assert bands * rows <= 128 and (1 - threshold**rows) ** bands < 1e-6


def test_pairs_are_those_of_a_full_comparison() -> None:
    texts = [passage(seed) for seed in range(12)]
    texts += [changed(texts[i], 7 * i + 3) for i in range(6)] + [changed(changed(texts[6], 20), 80), texts[2]]
    sets = [shingles(text) for text in texts]
    expected = {(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts)) if jaccard(sets[i], sets[j]) >= 0.8}
    assert set(similar_pairs(texts, 0.8)) <= expected
    roots = clusters(texts, 0.8)
    assert {(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts)) if roots[i] == roots[j]} == expected
    assert len(expected) >= 7


def test_a_chain_of_near_duplicates_is_one_cluster_named_by_its_first() -> None:
    texts = [passage(99), passage(1)]
    for at in (10, 50, 90):
        texts.append(changed(texts[-1], at))
    assert clusters(texts, 0.85) == [0, 1, 1, 1, 1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), copies=st.integers(0, 4))
def test_no_document_and_no_near_duplicate_is_on_two_sides(seed: int, copies: int) -> None:
    base = [passage(seed + i, 60) for i in range(10)]
    texts = base + [changed(base[i], 30) for i in range(copies)] + base[:copies]
    splits = split_by_cluster(texts, SHARES, 0.7)
    by_split = {name: [t for t, s in zip(texts, splits, strict=True) if s == name] for name in SHARES}
    assert all(by_split.values())
    assert leakage(by_split, 0.7) == 0


def test_leakage_counts_exact_and_near_copies_on_both_sides() -> None:
    a, b, c, d = (passage(i) for i in range(4))
    assert leakage({"train": [a, b], "test": [c, d]}) == 0
    assert leakage({"train": [a, b], "test": [a, d]}) == 2
    assert leakage({"train": [a, a, b], "validation": [c], "test": [changed(a, 60), d]}) == 3
    assert leakage({"train": [a, a, b], "test": [c]}) == 0, "a repeat inside one split is no leak"


def test_a_split_by_document_would_leak() -> None:
    base = [passage(i) for i in range(20)]
    texts = base + [changed(text, 50) for text in base]
    naive = {"train": texts[::2], "test": texts[1::2]}
    assert leakage({"train": texts[:20], "test": texts[20:]}) == 40
    assert leakage(naive) == 0  # here index parity happens to keep each copy with its original
    splits = split_by_cluster(texts, SHARES, 0.8)
    assert splits[:20] == splits[20:] and set(splits) == set(SHARES)


def test_adding_documents_moves_none() -> None:
    texts = [passage(i) for i in range(30)]
    assert split_by_cluster([*texts, passage(77), passage(78)], SHARES, 0.8)[:30] == split_by_cluster(texts, SHARES, 0.8)


def test_a_small_corpus_still_fills_every_split() -> None:
    shares = {"train": 0.98, "validation": 0.01, "test": 0.01}
    assert set(split_by_cluster([passage(i) for i in range(5)], shares, 0.8)) == set(shares)
