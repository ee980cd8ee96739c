"""Learned sparse retrieval: an encoder with weights over the vocabulary, its inverted index, and what it adds to BM25 and dense search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(
    group="search", kinds={"torch"}, settings=("learned_sparse", "embedder", "reranker", "retrieval"), topics=("dense_and_sparse",),
    pool="gpu", deep=True,
)  # fmt: skip
def sparse_encoder(
    lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame, bm25_index: IndexArtifact, dense_index: IndexArtifact
) -> ModelArtifact:
    """SPLADE trained on dev queries and cloze queries with the tuned embedder's hard negatives; or a finished one as it is."""
    from curriculum.learned_sparse.training import train_sparse_encoder
    from curriculum.reranking.first_stage import retriever_over

    profile = lab.profile
    return train_sparse_encoder(
        passages, retrieval_tracks, lab.settings, mining=profile.embedder, tuning=profile.reranker, search=profile.retrieval,
        retriever=retriever_over(bm25_index, dense_index, profile.retrieval, model=lab.model, device=lab.device),
        model=lab.model(lab.settings.base), miner=lab.model(profile.embedder.base), out=lab.out, checkpoints=lab.checkpoints,
        progress=lab.progress, seed=lab.seed, device=lab.device,
    )  # fmt: skip


@lineage_asset(
    group="search", kinds={"torch", "lucene"}, settings="learned_sparse", topics=("dense_and_sparse",), pool="gpu", deep=True
)
def sparse_index(lab: Lab, sparse_encoder: ModelArtifact, passages: pd.DataFrame) -> IndexArtifact:
    """The sparse vectors of every passage, exact and as Lucene's impacts: an index a collection."""
    from curriculum.learned_sparse.encoder import SparseTexts
    from curriculum.learned_sparse.index import build_sparse_index

    encoder = SparseTexts(sparse_encoder.path, lab.settings, lab.device)
    return build_sparse_index(passages, encoder, lab.settings, out=lab.out, checkpoints=lab.checkpoints, progress=lab.progress)


@lineage_asset(
    group="search", kinds={"mteb", "lucene"}, settings=("learned_sparse", "reranker", "retrieval"),
    topics=("dense_and_sparse", "hybrid_search"), pool="gpu", deep=True,
)  # fmt: skip
def learned_sparse_study(
    lab: Lab,
    sparse_encoder: ModelArtifact,
    sparse_index: IndexArtifact,
    passages: pd.DataFrame,
    retrieval_tracks: pd.DataFrame,
    bm25_index: IndexArtifact,
    dense_index: IndexArtifact,
) -> StudyResult:
    """The learned sparse leg alone, as the third of the fusion, without expansion and pruned: quality, sparsity, bytes, milliseconds."""
    from curriculum.cells import Cells
    from curriculum.learned_sparse.encoder import SparseTexts
    from curriculum.learned_sparse.study import learned_sparse_study
    from curriculum.reranking.first_stage import retriever_over

    profile = lab.profile
    result = learned_sparse_study(
        passages, retrieval_tracks, lab.settings, encoder=SparseTexts(sparse_encoder.path, lab.settings, lab.device),
        retriever=retriever_over(bm25_index, dense_index, profile.retrieval, model=lab.model, device=lab.device),
        folders={"sparse": sparse_index.path, "bm25": bm25_index.path, "dense": dense_index.path}, tuning=profile.reranker,
        seed=lab.seed, cells=Cells(lab.checkpoints, lab.progress), progress=lab.progress,
    )  # fmt: skip
    result.identities += [lab.identity(lab.settings.base, "encoder of terms"), lab.identity(dense_index.facts["encoder"], "encoder")]
    return result
