"""Hybrid search: BM25 and dense hits fused by mteb's fusion functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from curriculum.retrieval.bm25 import Bm25Index, Hits
from curriculum.retrieval.dense import DenseIndex, Encoder
from curriculum.retrieval.settings import Fusion, RetrievalSettings

LEGS = ("bm25", "dense")
FLOOR = ""  # the id of no passage


def fuse(legs: list[dict[str, float]], fusion: Fusion, weights: list[float] | None = None) -> dict[str, float]:
    """Fused scores of one query's hits, {passage_id: score} a leg: reciprocal ranks ("rrf", k = 60; Cormack et al., 2009),
    scores between three deviations below and above their mean ("dbsf"), or between their least and greatest ("rsf").

    ``weights`` [legs] say how much each leg counts; equal where not given. For "rsf" a leg that lists less than another has its
    least score at 0 (:func:`floored`).
    """
    from mteb.models.hybrid_wrappers import fuse_dbsf, fuse_relative_score_fusion, fuse_rrf

    functions = {"rrf": fuse_rrf, "dbsf": fuse_dbsf, "rsf": fuse_relative_score_fusion}
    fused = functions[fusion](floored(legs) if fusion == "rsf" else legs, weights or [1.0 / len(legs)] * len(legs))
    return {passage: score for passage, score in fused.items() if passage != FLOOR}


def floored(legs: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """``legs`` of one query, those that list less than another with a hit ``FLOOR``, of score 0.

    BM25 gives 0 to a passage that has no term of the query, and does not list it: the least score that it lists is not its least. Without
    this the only passage with a rare word would stand in the middle of BM25's scale, and below whatever the dense leg likes best.
    """
    longest = max(map(len, legs), default=0)
    return [{**leg, FLOOR: min(0.0, *leg.values())} if 0 < len(leg) < longest else dict(leg) for leg in legs]


def leg_weights(dense: float) -> list[float]:
    """What each of ``LEGS`` counts when the dense one counts ``dense`` and both together 1."""
    return [1 - dense, dense]


def ranked(scores: Mapping[str, float], k: int) -> list[tuple[str, float]]:
    """The ``k`` best, best first; equal scores by descending id, as mteb and trec_eval order them."""
    return sorted(scores.items(), key=lambda hit: (hit[1], hit[0]), reverse=True)[:k]


class HybridRetriever:
    """BM25 and dense search over the same passages, fused.

    ``bm25`` and ``dense`` are the folders of the two indexes (a promoted index holds them as ``bm25/`` and ``dense/``).
    """

    def __init__(
        self,
        bm25: Path,
        dense: Path,
        encoder: Encoder,
        *,
        fusion: Fusion = "rrf",
        weights: list[float] | None = None,
        depth: int = 100,
        k1: float = 0.9,
        b: float = 0.4,
    ) -> None:
        self._folders, self._encoder = (bm25, dense), encoder
        self._fusion, self._weights, self.depth, self._k1, self._b = fusion, weights, depth, k1, b
        self._open: dict[str, tuple[Bm25Index, DenseIndex]] = {}

    @classmethod
    def under(cls, settings: RetrievalSettings, bm25: Path, dense: Path, encoder: Encoder) -> Self:
        """Both legs and their fusion as ``settings`` have them."""
        weights = leg_weights(settings.dense_weight)
        return cls(bm25, dense, encoder, fusion=settings.fusion, weights=weights, depth=settings.depth, k1=settings.k1, b=settings.b)

    def leg(self, name: str, queries: list[str], k: int, collection: str = "project") -> Hits:
        """The hits of one leg, ``bm25`` or ``dense``: for each query its ``k`` best (passage_id, score), best first."""
        if not queries:
            return []
        if collection not in self._open:
            bm25, dense = self._folders
            self._open[collection] = (Bm25Index(bm25, collection, k1=self._k1, b=self._b), DenseIndex(dense, collection))
        lexical, semantic = self._open[collection]
        return lexical.search(queries, k) if name == "bm25" else semantic.search(self._encoder.queries(queries), k)

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, Hits]:
        """Each leg's own hits, by its name."""
        return {name: self.leg(name, queries, k, collection) for name in LEGS}

    def search(self, queries: list[str], k: int, collection: str = "project") -> Hits:
        """For each query the ``k`` best fused (passage_id, score), best first."""
        if not queries:
            return []
        return self.fused(self.legs(queries, max(k, self.depth), collection), k)

    def fused(self, legs: Mapping[str, Hits], k: int) -> Hits:
        """What :meth:`search` makes of the hits of both legs: for each query the ``k`` best fused (passage_id, score), best first."""
        pairs = ([dict(hits) for hits in pair] for pair in zip(*legs.values(), strict=True))
        return [ranked(fuse(pair, self._fusion, self._weights), k) for pair in pairs]
