"""Tuning without cheating: search settings chosen on dev questions, the test questions read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact, IndexArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(
    group="search", kinds={"optuna", "lucene", "faiss"}, settings=("search_tuning", "retrieval", "vector_search", "reranker"),
    topics=("hybrid_search",), deep=True, pool="gpu",
)  # fmt: skip
def search_tuning_study(
    lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame, notes_corpus: pd.DataFrame, pydocs_corpus: pd.DataFrame,
    notes_questions: pd.DataFrame, two_hop_questions: pd.DataFrame, bm25_index: IndexArtifact, dense_index: IndexArtifact, reranker: ModelArtifact,
) -> StudyResult:  # fmt: skip
    """Chunking, BM25, fusion, depth and reranking searched on dev questions; the chosen setting against the default on test, read once."""
    from curriculum.search_tuning.assembly import Parts, Plan, tune

    parts = Parts(passages, notes_corpus, pydocs_corpus, bm25_index, dense_index, reranker)
    profile, source = lab.profile, dense_index.facts["encoder"]
    plan = Plan(lab.settings, profile.retrieval, profile.vector_search, profile.reranker, lab.seed)
    result = tune(
        parts, retrieval_tracks, notes_questions, two_hop_questions, plan, encoder=lab.model(source), device=lab.device,
        checkpoints=lab.checkpoints, progress=lab.progress,
    )  # fmt: skip
    result.identities += [lab.identity(source, "encoder"), lab.identity(profile.reranker.model, "model")]
    return result


@lineage_asset(group="search", kinds={"json"}, topics=("hybrid_search",), deep=True)
def search_settings(lab: Lab, search_tuning_study: StudyResult) -> DirectoryArtifact:
    """The setting that the study chose, as JSON: a candidate for what the service searches with."""
    from curriculum.search_tuning.chosen import write_chosen

    return write_chosen(search_tuning_study, lab.out)
