"""BM25 (Robertson et al., 1994) by Lucene through pyserini: one index a collection."""

from __future__ import annotations

import weakref
from pathlib import Path

import pandas as pd

from curriculum.artifacts import IndexArtifact
from curriculum.errors import DataError
from curriculum.retrieval.java import lucene_searcher, prepare_java, quiet_java
from curriculum.retrieval.passages import contents
from curriculum.retrieval.settings import RetrievalSettings

Hits = list[list[tuple[str, float]]]


def build_bm25(passages: pd.DataFrame, settings: RetrievalSettings, out: Path) -> IndexArtifact:
    """Write ``out/COLLECTION`` for every collection of ``passages``.

    Raises:
        DataError: there are no passages.
    """
    if passages.empty:
        raise DataError("there are no passages to index")
    prepare_java()
    from pyserini.index.lucene import LuceneIndexer

    quiet_java()
    for collection, group in passages.groupby("collection"):
        indexer = LuceneIndexer(str(out / collection), append=False, threads=1)
        rows = zip(group["passage_id"], contents(group), strict=True)
        indexer.add_batch_dict([{"id": pid, "contents": text} for pid, text in rows])
        indexer.close()
    for lock in out.rglob("write.lock"):
        lock.unlink()  # Lucene leaves it behind; an artifact is read only
    counts = {str(name): len(group) for name, group in passages.groupby("collection")}
    return IndexArtifact(out, {"k1": settings.k1, "b": settings.b, "passages": counts})


class Bm25Index:
    """A Lucene index of one collection, kept in the folder ``path`` as :func:`build_bm25` writes it. Its files are closed with it.

    Raises:
        DataError: there is no such collection.
    """

    def __init__(self, path: Path, collection: str = "project", *, k1: float = 0.9, b: float = 0.4, threads: int = 1) -> None:
        if not (path / collection).exists():
            raise DataError(f"the BM25 index {path} holds no collection '{collection}'; materialise bm25_index with it")
        self._searcher = lucene_searcher()(str(path / collection))
        self._searcher.set_bm25(k1, b)
        self._threads = threads
        weakref.finalize(self, self._searcher.close).atexit = False  # Lucene maps the files into memory, and Java would keep them

    def search(self, queries: list[str], k: int) -> Hits:
        """For each query its ``k`` best (passage_id, score), best first; equal scores in order of id.

        A query of stop words alone, or without words, has no hits.
        """
        if not queries:
            return []
        ids = [str(i) for i in range(len(queries))]
        found = self._searcher.batch_search(queries, ids, k=k, threads=self._threads)
        return [sorted(((h.docid, float(h.score)) for h in found.get(i, [])), key=lambda hit: (-hit[1], hit[0])) for i in ids]
