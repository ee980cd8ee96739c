"""The answerer that the settings name, made of the promoted reader or of the profile's generator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from curriculum.rag.answerers import Answerer, GeneratorAnswerer, ReaderAnswerer
from curriculum.rag.answering import Pipeline
from curriculum.rag.settings import RagSettings
from curriculum.retrieval.settings import RetrievalSettings

if TYPE_CHECKING:
    from curriculum.generation.base import Generator


def build_answerer(
    settings: RagSettings, *, reader: Path, generator: Callable[[], Generator], device: str = "cpu", seed: int = 0
) -> Answerer:
    """``reader`` is the directory of a trained reader; ``generator`` is called, and its model loaded, only when it is to answer."""
    if settings.answerer == "generator":
        return GeneratorAnswerer(
            generator(), max_new_tokens=settings.max_new_tokens, passage_words=settings.passage_words, seed=seed
        )
    from curriculum.reading.reader import Reader

    loaded = Reader.load(reader, device)
    return ReaderAnswerer(lambda pairs: [(span.text, span.score) for span in loaded.answer(pairs)])


def build_pipeline(
    settings: RagSettings,
    search: RetrievalSettings,
    *,
    index: Path,
    encoder: Path,
    reranker: Path,
    verifier: Path,
    reader: Path,
    generator: Callable[[], Generator],
    device: str = "cpu",
    seed: int = 0,
) -> Pipeline:
    """The parts that answer together, loaded from the folders of their artifacts; ``index`` holds the BM25 and the dense index."""
    from curriculum.grounding.verifier import SupportVerifier
    from curriculum.reranking.first_stage import first_stage
    from curriculum.reranking.reranker import Reranker

    return Pipeline(
        first_stage(index / "bm25", index / "dense", search, encoder=encoder, device=device),
        Reranker.load(reranker, device),
        SupportVerifier.load(verifier, device),
        build_answerer(settings, reader=reader, generator=generator, device=device, seed=seed),
    )
