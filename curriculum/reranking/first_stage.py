"""The first stage of search, opened from its two index folders with the profile's retrieval settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from curriculum.artifacts import IndexArtifact
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import HybridRetriever
from curriculum.retrieval.settings import RetrievalSettings


def first_stage(bm25: Path, dense: Path, settings: RetrievalSettings, *, encoder: Path, device: str = "cpu") -> HybridRetriever:
    """Hybrid search over the indexes in ``bm25`` and ``dense``; ``encoder`` is the directory of the sentence encoder."""
    return HybridRetriever.under(settings, bm25, dense, Encoder(encoder, settings, device))


def retriever_over(
    bm25: IndexArtifact, dense: IndexArtifact, settings: RetrievalSettings, *, model: Callable[[str], Path], device: str = "cpu"
) -> HybridRetriever:
    """Hybrid search over both indexes. Queries are encoded by the model that built the dense one; ``model`` resolves its source."""
    return first_stage(bm25.path, dense.path, settings, encoder=model(dense.facts["encoder"]), device=device)
