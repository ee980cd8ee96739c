"""The first stage of search, opened from its two index folders with the profile's retrieval settings."""

from __future__ import annotations

from pathlib import Path

from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import HybridRetriever
from curriculum.retrieval.settings import RetrievalSettings


def first_stage(bm25: Path, dense: Path, settings: RetrievalSettings, *, encoder: Path, device: str = "cpu") -> HybridRetriever:
    """Hybrid search over the indexes in ``bm25`` and ``dense``; ``encoder`` is the directory of the sentence encoder."""
    return HybridRetriever(
        bm25, dense, Encoder(encoder, settings, device), depth=settings.depth, k1=settings.k1, b=settings.b
    )
