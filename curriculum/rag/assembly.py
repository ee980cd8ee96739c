"""What answers, made of the promoted parts: the answerer that the settings name, and the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from curriculum.rag.answerers import Answerer, GeneratorAnswerer, ReaderAnswerer
from curriculum.rag.answering import Pipeline
from curriculum.rag.settings import RagSettings

if TYPE_CHECKING:
    from curriculum.artifacts import IndexArtifact, ModelArtifact
    from curriculum.generation.base import Generator
    from curriculum.retrieval.settings import RetrievalSettings


def build_answerer(
    settings: RagSettings, *, reader: Path, generator: Callable[[], Generator], device: str = "cpu", seed: int = 0
) -> Answerer:
    """``reader`` is the directory of a trained reader; ``generator`` is called, and its model loaded, only when it is to answer."""
    if settings.answerer == "generator":
        return GeneratorAnswerer(
            generator(), max_new_tokens=settings.max_new_tokens, passage_words=settings.passage_words, seed=seed
        )
    return build_reader(reader, device)


def build_reader(reader: Path, device: str = "cpu") -> ReaderAnswerer:
    """An answerer by the trained reader in the directory ``reader``."""
    from curriculum.reading.reader import Reader

    loaded = Reader.load(reader, device)
    return ReaderAnswerer(lambda pairs: [(span.text, span.score) for span in loaded.answer(pairs)])


def build_pipeline(
    index: IndexArtifact,
    reranker: ModelArtifact,
    verifier: ModelArtifact,
    reader: ModelArtifact,
    settings: RagSettings,
    search: RetrievalSettings,
    *,
    model: Callable[[str], Path],
    generator: Callable[[], Generator],
    device: str = "cpu",
    seed: int = 0,
) -> Pipeline:
    """The parts that answer together, loaded from their artifacts. ``model`` finds the folder of the encoder that the index names."""
    from curriculum.grounding.verifier import SupportVerifier
    from curriculum.reranking.first_stage import first_stage
    from curriculum.reranking.reranker import Reranker

    encoder = model(index.facts["dense"]["encoder"])
    return Pipeline(
        first_stage(index.path / "bm25", index.path / "dense", search, encoder=encoder, device=device),
        Reranker.load(reranker.path, device),
        SupportVerifier.load(verifier.path, device),
        build_answerer(settings, reader=reader.path, generator=generator, device=device, seed=seed),
    )
