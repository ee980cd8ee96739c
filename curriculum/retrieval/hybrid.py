"""Hybrid search: BM25 and dense hits fused by mteb's fusion functions."""

from __future__ import annotations

from pathlib import Path

from curriculum.retrieval.bm25 import Bm25Index, Hits
from curriculum.retrieval.dense import DenseIndex, Encoder
from curriculum.retrieval.settings import Fusion


def fuse(legs: list[dict[str, float]], fusion: Fusion, weights: list[float] | None = None) -> dict[str, float]:
    """Fused scores of one query's hits: RRF (Cormack et al., 2009), distribution-based, or relative score fusion."""
    from mteb.models.hybrid_wrappers import fuse_dbsf, fuse_relative_score_fusion, fuse_rrf

    functions = {"rrf": fuse_rrf, "dbsf": fuse_dbsf, "rsf": fuse_relative_score_fusion}
    return dict(functions[fusion](legs, weights or [1.0 / len(legs)] * len(legs)))


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
        depth: int = 100,
        k1: float = 0.9,
        b: float = 0.4,
    ) -> None:
        self._folders, self._encoder = (bm25, dense), encoder
        self._fusion, self._depth, self._k1, self._b = fusion, depth, k1, b
        self._open: dict[str, tuple[Bm25Index, DenseIndex]] = {}

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, Hits]:
        """Each leg's own hits: ``bm25`` and ``dense``."""
        if collection not in self._open:
            bm25, dense = self._folders
            self._open[collection] = (Bm25Index(bm25, collection, k1=self._k1, b=self._b), DenseIndex(dense, collection))
        lexical, semantic = self._open[collection]
        return {"bm25": lexical.search(queries, k), "dense": semantic.search(self._encoder.queries(queries), k)}

    def search(self, queries: list[str], k: int, collection: str = "project") -> Hits:
        """For each query the ``k`` best fused (passage_id, score), best first."""
        if not queries:
            return []
        legs = self.legs(queries, max(k, self._depth), collection)
        fused = (fuse([dict(hits) for hits in pair], self._fusion) for pair in zip(*legs.values(), strict=True))
        return [sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:k] for scores in fused]
