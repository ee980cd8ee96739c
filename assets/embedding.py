"""The tuned embedder: a candidate that replaces the profile's encoder only where it beats it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(
    group="search", kinds={"torch"}, settings=("embedder", "retrieval"), topics=("negatives_mining", "info_nce"), pool="gpu", deep=True
)
def embedder(
    lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame, bm25_index: IndexArtifact, dense_index: IndexArtifact
) -> ModelArtifact:
    """The sentence encoder tuned on dev queries and cloze queries, with negatives mined from BM25 and from the current index."""
    from curriculum.embedding.training import train_embedder
    from curriculum.reranking.first_stage import retriever_over

    search = lab.profile.retrieval
    retriever = retriever_over(bm25_index, dense_index, search, model=lab.model, device=lab.device)
    return train_embedder(
        passages, retrieval_tracks, lab.settings, search, retriever=retriever, model=lab.model(lab.settings.base), out=lab.out,
        checkpoints=lab.checkpoints, progress=lab.progress, seed=lab.seed, device=lab.device,
    )  # fmt: skip


@lineage_asset(
    group="search", kinds={"mteb"}, settings=("embedder", "retrieval"), topics=("negatives_mining", "info_nce"), pool="gpu", deep=True
)
def embedder_report(
    lab: Lab,
    embedder: ModelArtifact,
    passages: pd.DataFrame,
    retrieval_tracks: pd.DataFrame,
    bm25_index: IndexArtifact,
    dense_index: IndexArtifact,
) -> StudyResult:
    """nDCG@10 of the tuned encoder against the one in use on the same test queries, alone and fused with BM25."""
    from curriculum.embedding.report import embedder_report

    search = lab.profile.retrieval
    result = embedder_report(
        passages, retrieval_tracks, search, bm25=bm25_index.path, dense=dense_index.path, base=lab.model(dense_index.facts["encoder"]),
        tuned=embedder.path, checkpoints=lab.checkpoints, progress=lab.progress, seed=lab.seed, device=lab.device,
    )  # fmt: skip
    result.identities.append(lab.identity(dense_index.facts["encoder"], "encoder"))
    return result
