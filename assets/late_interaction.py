"""Late interaction: a vector a token instead of one a passage, as a reranker beside the cross-encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact, IndexArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(
    group="search", kinds={"torch", "faiss"}, settings=("late_interaction", "reranker", "retrieval"), topics=("reranking",), pool="gpu", deep=True
)
def late_interaction_study(
    lab: Lab,
    reranker: ModelArtifact,
    passages: pd.DataFrame,
    retrieval_tracks: pd.DataFrame,
    passage_embeddings: DirectoryArtifact,
    bm25_index: IndexArtifact,
    dense_index: IndexArtifact,
) -> StudyResult:
    """MaxSim over token vectors against a cross-encoder, a single vector and no reranking: nDCG@10, seconds a query, bytes a passage."""
    from curriculum.cells import Cells
    from curriculum.late_interaction.encoder import TokenEncoder
    from curriculum.late_interaction.study import late_interaction_study
    from curriculum.late_interaction.systems import single_vectors
    from curriculum.reranking.first_stage import retriever_over
    from curriculum.reranking.reranker import Reranker
    from curriculum.retrieval.dense import Encoder

    retrieval, source = lab.profile.retrieval, dense_index.facts["encoder"]
    result = late_interaction_study(
        Reranker.load(reranker.path, lab.device), passages, retrieval_tracks, lab.settings, tuning=lab.profile.reranker,
        retriever=retriever_over(bm25_index, dense_index, retrieval, model=lab.model, device=lab.device),
        tokens=TokenEncoder(lab.model(lab.settings.encoder), lab.settings, lab.device),
        single=single_vectors(passage_embeddings, Encoder(lab.model(source), retrieval, lab.device)),
        seed=lab.seed, cells=Cells(lab.checkpoints, lab.progress), progress=lab.progress,
    )  # fmt: skip
    result.identities += [lab.identity(lab.settings.encoder, "encoder of tokens"), lab.identity(source, "encoder")]
    return result
