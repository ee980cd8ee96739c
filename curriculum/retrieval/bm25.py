"""BM25 (Robertson et al., 1994) by Lucene through pyserini: one index a collection."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
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
    counts = {str(name): add_passages(out / str(name), [group]) for name, group in passages.groupby("collection")}
    return IndexArtifact(out, {"k1": settings.k1, "b": settings.b, "passages": counts})


def add_passages(index: Path, batches: Iterable[pd.DataFrame], *, append: bool = False) -> int:
    """Write the Lucene index of one collection, or add to the one that is there. How many passages were added."""
    prepare_java()
    from pyserini.index.lucene import LuceneIndexer

    quiet_java()
    indexer, count = LuceneIndexer(str(index), append=append, threads=1), 0
    for batch in batches:
        rows = zip(batch["passage_id"], contents(batch), strict=True)
        indexer.add_batch_dict([{"id": pid, "contents": text} for pid, text in rows])
        count += len(batch)
    indexer.close()
    _unlock(index)
    return count


def remove_passages(index: Path, ids: Iterable[str]) -> None:
    """Take passages out of a Lucene index, whole: it then scores as if they had never been in it."""
    prepare_java()
    import pyserini.index.lucene  # noqa: F401  puts Lucene on Java's class path, which is fixed once Java has started
    from jnius import autoclass

    quiet_java()
    lucene = "org.apache.lucene"
    term, query = autoclass(f"{lucene}.index.Term"), autoclass(f"{lucene}.search.TermQuery")
    folder = autoclass(f"{lucene}.store.FSDirectory").open(autoclass("java.nio.file.Paths").get(str(index)))
    writer = autoclass(f"{lucene}.index.IndexWriter")(folder, autoclass(f"{lucene}.index.IndexWriterConfig")())
    for pid in ids:
        writer.deleteDocuments(query(term("id", pid)))
    writer.forceMerge(1)  # until then the counts that BM25 weighs by hold what was removed
    writer.close()
    folder.close()
    _unlock(index)


def _unlock(index: Path) -> None:
    (index / "write.lock").unlink(missing_ok=True)  # Lucene leaves it behind; an artifact is read only


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

    def __len__(self) -> int:
        """Passages that the index holds."""
        return int(self._searcher.num_docs)

    def search(self, queries: list[str], k: int) -> Hits:
        """For each query its ``k`` best (passage_id, score), best first; equal scores in order of id.

        A query of stop words alone, or without words, has no hits.
        """
        ids = [str(i) for i in range(len(queries))]
        if len(queries) > 1:
            found = self._searcher.batch_search(queries, ids, k=k, threads=self._threads)
        else:  # without the pool of threads that a batch starts: half the time
            found = {i: self._searcher.search(query, k=k) for i, query in zip(ids, queries, strict=True)}
        return [sorted(((h.docid, float(h.score)) for h in found.get(i, [])), key=lambda hit: (-hit[1], hit[0])) for i in ids]
