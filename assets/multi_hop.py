"""Multi-hop retrieval: questions that need two passages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="search", kinds={"lucene", "faiss"}, settings=("multi_hop", "retrieval"), topics=("multi_hop",), pool="gpu", deep=True)
def multi_hop_study(
    lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame, two_hop_questions: pd.DataFrame, bm25_index: IndexArtifact,
    dense_index: IndexArtifact, qa_reader: ModelArtifact,
) -> StudyResult:  # fmt: skip
    """One search against two, the second asked with what the first found: evidence and answers on two-hop questions."""
    from curriculum.multi_hop.hops import Asking
    from curriculum.multi_hop.study import multi_hop_study
    from curriculum.rag.assembly import build_reader
    from curriculum.reranking.first_stage import retriever_over
    from curriculum.reranking.reranker import passage_texts
    from curriculum.retrieval.dense import Encoder

    retrieval, source = lab.profile.retrieval, dense_index.facts["encoder"]
    encoder, project = Encoder(lab.model(source), retrieval, lab.device), passages[passages["collection"] == "project"]
    return multi_hop_study(
        project, retrieval_tracks, two_hop_questions, retriever_over(bm25_index, dense_index, retrieval, model=lab.model, device=lab.device),
        Asking.over(passage_texts(project), encoder.queries, encoder.passages), build_reader(qa_reader.path, lab.device), lab.settings,
        seed=lab.seed, identities=[lab.identity(source, "encoder")], progress=lab.progress,
    )  # fmt: skip
