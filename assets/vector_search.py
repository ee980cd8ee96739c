"""Vector indexes: the exact one and the approximate ones, over the passages and over larger sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact, IndexArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="search", kinds={"faiss"}, settings=("vector_search", "retrieval"), topics=("semantic_search",), pool="gpu", deep=True)
def vector_index_study(
    lab: Lab, passage_embeddings: DirectoryArtifact, dense_index: IndexArtifact, retrieval_tracks: pd.DataFrame
) -> StudyResult:
    """faiss flat, HNSW and IVF-PQ: recall against the exact scan, latency, memory and their growth; the kind that a corpus's size asks for."""
    from curriculum.cells import Cells
    from curriculum.retrieval.dense import Encoder
    from curriculum.vector_search.study import vector_index_study

    source = dense_index.facts["encoder"]
    encoder = Encoder(lab.model(source), lab.profile.retrieval, lab.device)
    result = vector_index_study(
        passage_embeddings, dense_index, retrieval_tracks, lab.settings, encode=encoder.queries, seed=lab.seed,
        cells=Cells(lab.checkpoints, lab.progress), progress=lab.progress,
    )  # fmt: skip
    result.identities.append(lab.identity(source, "encoder"))
    return result
