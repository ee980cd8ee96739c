"""Fusion is what the papers say, and the retriever that is served is the one that mteb measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import HybridRetriever, fuse, ranked
from curriculum.retrieval.measure import FUSIONS, add_fusions, search_legs
from tests.retrieval.small import Searchable

SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-50, 50).map(lambda x: round(x, 3)), max_size=8)


@given(st.lists(SCORES, min_size=2, max_size=3))
def test_rrf_is_the_sum_of_reciprocal_ranks(legs: list[dict[str, float]]) -> None:
    expected: dict[str, float] = {}
    for leg in legs:
        for rank, (pid, _) in enumerate(ranked(leg, 8), 1):
            expected[pid] = expected.get(pid, 0.0) + 1 / len(legs) / (60 + rank)
    assert fuse(legs, "rrf") == pytest.approx(expected)


@given(SCORES, SCORES, st.floats(0.1, 0.9), st.floats(0.5, 3), st.floats(-5, 5))
def test_score_fusions_do_not_depend_on_a_legs_scale(
    a: dict[str, float], b: dict[str, float], w: float, scale: float, shift: float
) -> None:
    for fusion in ("dbsf", "rsf"):
        zero = fusion == "rsf" and len(a) < len(b)  # a leg that lists less has a floor, and its scores a zero
        moved = {pid: scale * (abs(score) if zero else score) + (0 if zero else shift) for pid, score in a.items()}
        a = {pid: abs(score) for pid, score in a.items()} if zero else a
        assert fuse([a, b], fusion, [w, 1 - w]) == pytest.approx(fuse([moved, b], fusion, [w, 1 - w]), abs=1e-6)
        assert all(-1e-9 <= score <= 1 + 1e-9 for score in fuse([a, b], fusion).values())


def test_the_only_passage_with_a_rare_word_stands_first() -> None:
    lexical, semantic = {"only": 7.0}, {"near": 0.9, "only": 0.2, "far": 0.1}
    fused = fuse([lexical, semantic], "rsf", [0.6, 0.4])
    assert [pid for pid, _ in ranked(fused, 3)] == ["only", "near", "far"] and fused["only"] == pytest.approx(0.6 + 0.4 * 0.125)
    assert fuse([{}, semantic], "rsf", [0.6, 0.4]).keys() == semantic.keys()  # nothing is listed, and nothing is made of it
    alike = fuse([{"near": 2.0, "only": 1.0, "far": 0.0}, semantic], "rsf", [0.6, 0.4])
    assert alike["near"] == pytest.approx(1.0)  # legs of one length are as mteb has them


def test_a_weight_of_one_is_the_leg_itself() -> None:
    lexical, semantic = {"a": 3.0, "b": 2.0, "c": 1.0}, {"c": 0.9, "b": 0.5, "d": 0.1}
    assert [pid for pid, _ in ranked(fuse([lexical, semantic], "rsf", [1.0, 0.0]), 2)] == ["a", "b"]
    assert [pid for pid, _ in ranked(fuse([lexical, semantic], "rsf", [0.0, 1.0]), 2)] == ["c", "b"]


def test_the_retriever_gives_what_mteb_measures(searchable: Searchable, minilm: Encoder) -> None:
    asked = searchable.tracks[searchable.tracks["split"] == "test"].head(9)
    searched = search_legs(HybridRetriever(searchable.bm25, searchable.dense, minilm), asked, 50)
    add_fusions(searched, searchable.passages, 50, 0.3)
    for system, (fusion, tuned) in FUSIONS.items():
        weights = [0.7, 0.3] if tuned else None
        served = HybridRetriever(searchable.bm25, searchable.dense, minilm, fusion=fusion, weights=weights, depth=50)
        for query, hits in zip(asked["query_id"], served.search(list(asked["query"]), 20), strict=True):
            measured = list(searched.runs[system][query].items())[:20]
            assert [pid for pid, _ in hits] == [pid for pid, _ in measured]
            assert [score for _, score in hits] == pytest.approx([score for _, score in measured])


def test_queries_are_independent_and_few_hits_are_enough(searchable: Searchable, minilm: Encoder) -> None:
    retriever = HybridRetriever(searchable.bm25, searchable.dense, minilm)
    queries = list(searchable.tracks["query"].head(4))
    together, alone = retriever.search(queries, 5), [retriever.search([query], 5)[0] for query in queries]
    assert [[pid for pid, _ in hits] for hits in together] == [[pid for pid, _ in hits] for hits in alone]
    assert all(len(hits) == 5 and hits == sorted(hits, key=lambda hit: -hit[1]) for hits in together)
    assert retriever.search([], 5) == []
    assert len(retriever.search(["the of"], 5)[0]) == 5  # no words for BM25: the dense leg answers


def test_an_unknown_collection_is_named(tmp_path: Path, searchable: Searchable, minilm: Encoder) -> None:
    from curriculum.errors import DataError

    with pytest.raises(DataError, match="no collection 'else'"):
        HybridRetriever(searchable.bm25, searchable.dense, minilm).search(["a"], 1, "else")
