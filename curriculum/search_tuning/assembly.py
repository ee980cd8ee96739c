"""What the study is put together from: the lineage's passages, indexes and reranker, and the corpora that other chunkings are cut from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from curriculum.artifacts import IndexArtifact, ModelArtifact
from curriculum.reranking.reranker import Reranker
from curriculum.reranking.settings import RerankerSettings
from curriculum.results import StudyResult
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import HybridRetriever
from curriculum.retrieval.passages import PROJECT
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.search_tuning.bench import SHOWN, Bench, PairScores
from curriculum.search_tuning.chunkings import Chunking, Workshop, chunking_of
from curriculum.search_tuning.questions import places, searched_documents, split_questions, trained_documents
from curriculum.search_tuning.settings import SearchTuningSettings, default_setting
from curriculum.search_tuning.study import search_tuning
from curriculum.vector_search.settings import VectorSearchSettings


@dataclass(frozen=True)
class Parts:
    """The lineage's own search, and the corpora."""

    passages: pd.DataFrame
    notes: pd.DataFrame
    documents: pd.DataFrame
    bm25: IndexArtifact
    dense: IndexArtifact
    reranker: ModelArtifact


@dataclass(frozen=True)
class Plan:
    """The settings: of the search for better ones, and of what is searched by."""

    tuning: SearchTuningSettings
    retrieval: RetrievalSettings
    vector_search: VectorSearchSettings
    reranker: RerankerSettings
    seed: int


def tune(
    parts: Parts, tracks: pd.DataFrame, questions: pd.DataFrame, two_hop: pd.DataFrame, plan: Plan, *, encoder: Path, device: str,
    checkpoints: Path, progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """The study over the project's own collection. ``tracks`` say which dev queries the reranker was trained on; ``encoder`` is the folder
    of the model that built the dense index.

    Raises:
        DataError: a split has no questions, or passages and corpora are of different versions.
        SplitSpentError: the test questions were read before, for other settings.
    """
    settings, retrieval = plan.tuning, plan.retrieval.model_copy(update={"encoder": parts.dense.facts["encoder"]})
    documents = searched_documents(parts.passages, parts.notes, parts.documents)
    whole, trained = places(documents), trained_documents(tracks, plan.reranker, plan.seed)
    dev, held_out = split_questions(whole, questions, two_hop, trained, settings, checkpoints / "test_read.json")
    progress(f"{len(dev)} dev questions over {len(documents)} documents")
    model = Encoder(encoder, retrieval, device)
    workshop = Workshop(documents, whole, model, retrieval, plan.vector_search, checkpoints, progress)
    ready = Reranker.load(parts.reranker.path, device)
    bench = Bench(
        _chunkings(parts, workshop, settings.passage_words), model.queries,
        PairScores(lambda pairs: ready.encoder.score(pairs, ready.batch_size), checkpoints / "pair_scores.json", progress), ready.weight,
    )  # fmt: skip
    lineage = HybridRetriever.under(retrieval, parts.bm25.path, parts.dense.path, model)
    return search_tuning(
        bench, dev, held_out, settings, default_setting(retrieval, plan.reranker), served=lambda asked: lineage.search(asked, SHOWN, PROJECT),
        seed=plan.seed, checkpoints=checkpoints, progress=progress,
    )  # fmt: skip


def _chunkings(parts: Parts, workshop: Workshop, words: tuple[int, ...]) -> dict[int, Chunking]:
    """Every chunking by its words; that of the default setting is the lineage's own, indexed already."""
    own = parts.passages[parts.passages["collection"] == PROJECT]
    default = workshop.retrieval.passage_words
    found = {default: chunking_of(own, workshop.whole, parts.bm25.path, parts.dense.path)}
    return found | {size: workshop.make(size) for size in words if size != default}
