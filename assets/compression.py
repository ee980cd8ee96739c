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
    promoted_verifier: ModelArtifact,
    promoted_reader: ModelArtifact,
    notes_questions: pd.DataFrame,
) -> StudyResult:
    """Sentences by position, by the question and by the reranker, and words by their surprise: answers kept and F1 against tokens kept."""
    from curriculum.cells import Cells
    from curriculum.compression.study import context_compression_study
    from curriculum.compression.surprise import Surprise
    from curriculum.compression.systems import Judges
    from curriculum.rag.assembly import build_pipeline
    from curriculum.rag.questions import asked_questions
    from curriculum.retrieval.dense import Encoder

    rag, retrieval, source = lab.profile.rag, lab.profile.retrieval, promoted_index.facts["dense"]["encoder"]
    pipeline = build_pipeline(
        promoted_index, promoted_reranker, promoted_verifier, promoted_reader, rag.model_copy(update={"answerer": "reader"}), retrieval,
        model=lab.model, generator=lab.generator, device=lab.device, seed=lab.seed,
    )  # fmt: skip
    surprise = Surprise(lab.model(lab.settings.model), lab.device)
    return context_compression_study(
        asked_questions(notes_questions, rag, retrieval, lab.dataset), passages, pipeline.retriever,
        Judges(Encoder(lab.model(source), retrieval, lab.device), pipeline.reranker.encoder, surprise), pipeline.answerer, lab.settings,
        collection=rag.collection, seed=lab.seed, cells=Cells(lab.checkpoints, lab.progress),
        identities=[lab.identity(lab.settings.model, "model of surprise"), lab.identity(source, "encoder")],
    )  # fmt: skip
