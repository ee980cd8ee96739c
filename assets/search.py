"""Search: passages, BM25 and dense indexes, retrieval tracks, and hybrid search measured on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact, IndexArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="search", kinds={"parquet"}, settings="retrieval")
def passages(lab: Lab, notes_corpus: pd.DataFrame, pydocs_corpus: pd.DataFrame) -> pd.DataFrame:
    """What is searched: passages of the notes and of the Python documentation, and the documents of any user's collection."""
    import pandas as pd

    from curriculum.retrieval.passages import beir_passages, project_passages
    from curriculum.retrieval.sets import retrieval_sets

    sets = retrieval_sets(lab.settings, lab.dataset)
    return pd.concat([project_passages(notes_corpus, pydocs_corpus, lab.settings), beir_passages(sets)], ignore_index=True)


@lineage_asset(group="search", kinds={"parquet"}, settings="retrieval", topics=("hybrid_search",))
def retrieval_tracks(
    lab: Lab, passages: pd.DataFrame, notes_questions: pd.DataFrame, two_hop_questions: pd.DataFrame
) -> pd.DataFrame:
    """Queries with graded passages: questions on one note and on two, known items, and the user's own qrels."""
    from curriculum.retrieval.sets import retrieval_sets
    from curriculum.retrieval.tracks import build_tracks

    sets = retrieval_sets(lab.settings, lab.dataset)
    return build_tracks(passages, notes_questions, two_hop_questions, sets, lab.settings.max_queries)


@lineage_asset(group="search", kinds={"lucene"}, settings="retrieval", topics=("dense_and_sparse",))
def bm25_index(lab: Lab, passages: pd.DataFrame) -> IndexArtifact:
    """A Lucene index a collection."""
    from curriculum.retrieval.bm25 import build_bm25

    return build_bm25(passages, lab.settings, lab.out)


@lineage_asset(group="search", kinds={"torch", "safetensors"}, settings="retrieval", topics=("sentence_embeddings",), pool="gpu")
def passage_embeddings(lab: Lab, passages: pd.DataFrame) -> DirectoryArtifact:
    """Unit vectors of every passage, by the profile's encoder with its own pooling and prompts."""
    from curriculum.cluster.encoding import encoder_on
    from curriculum.retrieval.dense import embed_passages

    settings = lab.settings.model_copy(update={"encoder": lab.pinned(lab.settings.encoder)})
    with encoder_on(lab.model(settings.encoder), settings, lab.device, lab.profile.compute, lab.progress) as encoder:
        return embed_passages(passages, encoder, settings, lab.out, lab.checkpoints, lab.progress)


@lineage_asset(group="search", kinds={"faiss"}, settings=("vector_search", "retrieval"), topics=("semantic_search",))
def dense_index(lab: Lab, passage_embeddings: DirectoryArtifact) -> IndexArtifact:
    """An inner-product index a collection: exact while a scan is short, then HNSW, then re-scored codes."""
    from curriculum.cluster.indexing import codes_by
    from curriculum.retrieval.dense import build_dense

    return build_dense(passage_embeddings, lab.out, lab.settings, codes_by(lab.profile.compute, lab.progress))


@lineage_asset(group="search", kinds={"lucene", "faiss"}, settings="retrieval")
def search_index(lab: Lab, bm25_index: IndexArtifact, dense_index: IndexArtifact) -> IndexArtifact:
    """Both indexes as one candidate: what is promoted, and rolled back, together."""
    import shutil

    from curriculum.artifacts import IndexArtifact

    shutil.copytree(bm25_index.path, lab.out / "bm25")
    shutil.copytree(dense_index.path, lab.out / "dense")
    return IndexArtifact(lab.out, {"bm25": bm25_index.facts, "dense": dense_index.facts, "passage_words": lab.settings.passage_words})


@lineage_asset(group="search", kinds={"mteb"}, settings="retrieval", topics=("hybrid_search", "dense_and_sparse"), pool="gpu")
def hybrid_search_report(
    lab: Lab, passages: pd.DataFrame, retrieval_tracks: pd.DataFrame, bm25_index: IndexArtifact, dense_index: IndexArtifact
) -> StudyResult:
    """BM25, dense, and their fusion by RRF, DBSF, RSF and tuned weights, on every track."""
    from curriculum.reranking.first_stage import retriever_over
    from curriculum.retrieval.report import hybrid_report

    s = lab.settings
    retriever = retriever_over(bm25_index, dense_index, s, model=lab.model, device=lab.device)
    identities = [lab.identity(dense_index.facts["encoder"], "encoder"), *(lab.identity(uri, "collection") for uri in s.collections)]
    return hybrid_report(retriever, passages, retrieval_tracks, s, seed=lab.seed, identities=identities, progress=lab.progress)
