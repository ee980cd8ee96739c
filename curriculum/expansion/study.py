"""Query expansion measured: RM3 on every track, and RM3, HyDE and both in every leg on a sample of the headline track."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from curriculum.artifacts import IndexArtifact
from curriculum.cells import Cells
from curriculum.corpora.documents import text_digest
from curriculum.errors import DataError
from curriculum.expansion.hyde import write_passages
from curriculum.expansion.report import Found, report
from curriculum.expansion.rm3 import Rm3Index, build_feedback_index, parity, rm3_index
from curriculum.expansion.settings import ExpansionSettings
from curriculum.expansion.systems import scored, search_systems, vectors_of
from curriculum.generation.base import Generator
from curriculum.results import Identity, StudyResult
from curriculum.retrieval.bm25 import Bm25Index
from curriculum.retrieval.dense import DenseIndex, Encoder
from curriculum.retrieval.settings import RetrievalSettings


def query_expansion_study(
    passages: pd.DataFrame, tracks: pd.DataFrame, bm25: IndexArtifact, dense: IndexArtifact, settings: ExpansionSettings,
    retrieval: RetrievalSettings, *, encoder: Encoder, generator: Callable[[], Generator], seed: int, identities: list[Identity], cells: Cells,
) -> StudyResult:  # fmt: skip
    """Measure both expansions on test queries. Nothing is tuned, so that the dev queries are not read.

    A killed study goes on with the next queries to write passages for: finished ones are kept in ``cells``.

    Raises:
        DataError: the headline track has no test queries, or those of one question alone.
    """
    test = tracks[tracks["split"] == "test"]
    sample = sample_of(test[test["track"] == retrieval.headline_track], settings.queries)
    if sample.empty:
        raise DataError(f"no test queries in the track '{retrieval.headline_track}'; correct the setting retrieval.headline_track")
    written = write_passages(sample, settings, generator=generator, seed=seed, cells=cells, progress=cells.progress)
    vectors, collection = vectors_of(sample, written, encoder, seed), sample.iloc[0]["collection"]
    depth, weighed = max(100, retrieval.depth), {"k1": retrieval.k1, "b": retrieval.b}
    with tempfile.TemporaryDirectory(dir=cells.folder) as work:
        index = build_feedback_index(passages[passages["collection"].isin(set(test["collection"]))], Path(work))
        cells.progress("the index with term vectors is built")
        legs = Bm25Index(bm25.path, collection, **weighed), rm3_index(index, collection, settings, **weighed), DenseIndex(dense.path, collection)
        hits, ms = search_systems(list(sample["query"]), vectors, *legs, depth)
        parts = [feedback_on(own, bm25.path, index, settings, retrieval, depth) for _, own in test.groupby("track")]
    by_track, feedback = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
    found = Found(sample, written, scored(hits, sample), ms, by_track, feedback)
    return report(found, settings, retrieval, seed=seed, identities=identities)


def sample_of(queries: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most ``count`` of ``queries``, by hash: one phrasing of every question first, then second ones."""
    order = queries.assign(by_query=[text_digest(q) for q in queries["query_id"]], by_group=[text_digest(g) for g in queries["group"]])
    order = order.sort_values("by_query")
    order["turn"] = order.groupby("group").cumcount()
    return order.sort_values(["turn", "by_group"]).head(count)[queries.columns].reset_index(drop=True)


def feedback_on(
    queries: pd.DataFrame, bm25: Path, index: Path, settings: ExpansionSettings, retrieval: RetrievalSettings, depth: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """RM3 on all test queries of one track: scores a query of BM25 with and without it; and example_id, track, query, added terms, answered, same.

    ``same``: without feedback, the index with term vectors gave the ranking of the searched index. ``answered``: BM25 found something.
    """
    collection, asked, weighed = queries.iloc[0]["collection"], list(queries["query"]), {"k1": retrieval.k1, "b": retrieval.b}
    plain, expanding = Bm25Index(bm25, collection, **weighed).search(asked, depth), rm3_index(index, collection, settings, **weighed)
    scores = scored({"bm25": plain, "bm25_rm3": expanding.search(asked, depth)}, queries)
    unexpanded = Rm3Index(index, collection, documents=0, terms=settings.feedback_terms, weight=1.0, **weighed)
    feedback = queries[["query_id", "track", "query"]].rename(columns={"query_id": "example_id"}).assign(
        added=[list(expanding.added(query)) for query in asked], answered=[bool(own) for own in plain],
        same=parity(unexpanded.search(asked, depth), plain, [expanding.length(query) for query in asked], depth),
    )  # fmt: skip
    return scores, feedback
