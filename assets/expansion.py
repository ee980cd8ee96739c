"""Query expansion: what feedback terms and hypothetical passages add to each leg of search, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset
from assets.prompting import generator_of

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact
    from curriculum.results import StudyResult


@lineage_asset(
    group="search", kinds={"lucene", "huggingface"}, settings=("expansion", "retrieval", "generator"),
    topics=("hybrid_search", "dense_and_sparse"), pool="gpu", deep=True,
)  # fmt: skip
def query_expansion_study(
    lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame, bm25_index: IndexArtifact, dense_index: IndexArtifact
) -> StudyResult:
    """RM3 on BM25 and HyDE on the dense leg, each alone and fused: paired changes of nDCG@10 and recall@100, and their cost."""
    from curriculum.cells import Cells
    from curriculum.expansion.study import query_expansion_study
    from curriculum.retrieval.dense import Encoder

    source = dense_index.facts["encoder"]
    return query_expansion_study(
        passages, retrieval_tracks, bm25_index, dense_index, lab.settings, lab.profile.retrieval,
        encoder=Encoder(lab.model(source), lab.profile.retrieval, lab.device), generator=lab.generator, seed=lab.seed,
        identities=[lab.identity(source, "encoder"), *generator_of(lab)], cells=Cells(lab.checkpoints, lab.progress),
    )  # fmt: skip
