"""Context compression: which part of what was retrieved has to be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(
    group="rag", kinds={"torch", "huggingface"}, settings=("compression", "rag", "retrieval"), topics=("context_compression",), pool="gpu", deep=True
)
def context_compression_study(
    lab: Lab,
    promoted_index: IndexArtifact,
    passages: pd.DataFrame,
    promoted_reranker: ModelArtifact,
    promoted_reader: ModelArtifact,
    notes_questions: pd.DataFrame,
) -> StudyResult:
    """Sentences by position, by the question and by the reranker, and words by their surprise: answers kept and F1 against tokens kept."""
    from curriculum.cells import Cells
    from curriculum.compression.study import context_compression_study
    from curriculum.compression.surprise import Surprise
    from curriculum.compression.systems import Judges
    from curriculum.crossencoder.model import CrossEncoder
    from curriculum.rag.assembly import build_reader
    from curriculum.rag.questions import asked_questions
    from curriculum.reranking.first_stage import first_stage
    from curriculum.retrieval.dense import Encoder

    rag, retrieval, index, source = lab.profile.rag, lab.profile.retrieval, promoted_index.path, promoted_index.facts["dense"]["encoder"]
    encoder, cross_encoder = Encoder(lab.model(source), retrieval, lab.device), CrossEncoder.load(promoted_reranker.path, lab.device)
    return context_compression_study(
        asked_questions(notes_questions, rag, retrieval, lab.dataset), passages,
        first_stage(index / "bm25", index / "dense", retrieval, encoder=lab.model(source), device=lab.device),
        Judges(encoder, cross_encoder, Surprise(lab.model(lab.settings.model), lab.device)), build_reader(promoted_reader.path, lab.device),
        lab.settings, collection=rag.collection, seed=lab.seed, cells=Cells(lab.checkpoints, lab.progress),
        identities=[lab.identity(lab.settings.model, "model of surprise"), lab.identity(source, "encoder")],
    )  # fmt: skip
