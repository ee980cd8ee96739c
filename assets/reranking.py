"""Reranking: a cross-encoder trained on mined hard negatives, and what it gains over hybrid search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="search", kinds={"torch"}, settings=("reranker", "retrieval"), topics=("reranking",), pool="gpu")
def reranker(
    lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame, bm25_index: IndexArtifact, dense_index: IndexArtifact
) -> ModelArtifact:
    """A cross-encoder over (query, passage), trained on dev queries and cloze queries with negatives mined from both legs."""
    from curriculum.reranking.first_stage import retriever_over
    from curriculum.reranking.training import train_reranker

    retriever = retriever_over(bm25_index, dense_index, lab.profile.retrieval, model=lab.model, device=lab.device)
    return train_reranker(
        passages, retrieval_tracks, lab.settings, retriever=retriever, model=lab.model(lab.settings.model), out=lab.out,
        checkpoints=lab.checkpoints, progress=lab.progress, seed=lab.seed, device=lab.device, precision=lab.compute.precision,
    )  # fmt: skip


@lineage_asset(group="search", kinds={"torch"}, settings=("reranker", "retrieval"), topics=("reranking",), pool="gpu")
def reranker_report(
    lab: Lab,
    reranker: ModelArtifact,
    passages: pd.DataFrame,
    retrieval_tracks: pd.DataFrame,
    bm25_index: IndexArtifact,
    dense_index: IndexArtifact,
) -> StudyResult:
    """nDCG@10 of the hybrid top results before and after reranking on test queries, the paired gain, and its latency."""
    from curriculum.reranking.first_stage import retriever_over
    from curriculum.reranking.report import report_reranking
    from curriculum.reranking.reranker import Reranker

    retriever = retriever_over(bm25_index, dense_index, lab.profile.retrieval, model=lab.model, device=lab.device)
    trained = Reranker.load(reranker.path, lab.device)
    result = report_reranking(
        trained, passages, retrieval_tracks, lab.settings, retriever=retriever, progress=lab.progress, seed=lab.seed
    )
    result.identities.append(lab.identity(lab.settings.model, "model"))
    return result
