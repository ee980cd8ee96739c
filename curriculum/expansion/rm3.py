"""RM3 by Anserini: the query mixed with the terms of its best passages (Lavrenko and Croft, 2001; Abdul-Jaleel et al., 2004)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from curriculum.expansion.settings import ExpansionSettings
from curriculum.retrieval.bm25 import Bm25Index, Hits
from curriculum.retrieval.java import prepare_java, quiet_java
from curriculum.retrieval.passages import contents

ROUNDED = 1e-4  # Anserini's scores


def build_feedback_index(passages: pd.DataFrame, out: Path) -> Path:
    """Write ``out/COLLECTION`` for every collection of ``passages``: the index of :func:`curriculum.retrieval.bm25.build_bm25`
    with the term vectors that feedback reads. The searched index has none, nor the texts to make them from.
    """
    prepare_java()
    from pyserini.index.lucene import LuceneIndexer

    quiet_java()
    for collection, group in passages.groupby("collection"):
        indexer = LuceneIndexer(args=["-index", str(out / str(collection)), "-storeDocvectors"], threads=1)
        indexer.add_batch_dict([{"id": pid, "contents": text} for pid, text in zip(group["passage_id"], contents(group), strict=True)])
        indexer.close()
    return out


class Rm3Index(Bm25Index):
    """BM25 in two passes: the second query holds the first one's terms and those of its best passages.

    A term weighs ``weight`` p(term | query) + (1 - ``weight``) p(term | feedback), where a passage counts by its score. Terms that more
    than a tenth of the passages hold, or that are not of 2 to 20 letters and digits, are no feedback (Anserini's filter).

    ``path`` is a folder of :func:`build_feedback_index`.

    Raises:
        DataError: there is no such collection.
    """

    def __init__(
        self, path: Path, collection: str, *, documents: int, terms: int, weight: float, k1: float = 0.9, b: float = 0.4
    ) -> None:
        super().__init__(path, collection, k1=k1, b=b)
        self._searcher.set_rm3(terms, documents, weight)
        from pyserini.analysis import Analyzer, get_lucene_analyzer

        self._analyzer = Analyzer(get_lucene_analyzer())

    def length(self, query: str) -> int:
        """How many terms the query has, repetitions counted and stop words left out."""
        return len(self._analyzer.analyze(query))

    def weights(self, query: str) -> dict[str, float]:
        """Stemmed term -> its weight in the expanded query; empty for a query without words."""
        return dict(self._searcher.get_feedback_terms(query) or {})

    def added(self, query: str) -> dict[str, float]:
        """Those terms that the query does not hold and that weigh something, heaviest first."""
        own = set(self._analyzer.analyze(query))
        new = {term: float(weight) for term, weight in self.weights(query).items() if term not in own and weight > 0}
        return dict(sorted(new.items(), key=lambda item: (-item[1], item[0])))


def rm3_index(path: Path, collection: str, settings: ExpansionSettings, *, k1: float, b: float) -> Rm3Index:
    """RM3 as the settings say it."""
    how = {"documents": settings.feedback_documents, "terms": settings.feedback_terms, "weight": settings.original_weight}
    return Rm3Index(path, collection, **how, k1=k1, b=b)


def parity(found: Hits, plain: Hits, lengths: list[int], depth: int) -> list[bool]:
    """For each query whether RM3 without feedback ``found`` the ranking of BM25, ``plain``, of at most ``depth`` passages; ``lengths`` are
    the queries' in terms.

    RM3's scores are BM25's divided by the length, and Anserini rounds scores to 1e-4: passages nearer than that may change places, and at the
    end of a full list one may stand for another.
    """
    return [_same(new, old, ROUNDED * (length + 1), depth) for new, old, length in zip(found, plain, lengths, strict=True)]


def _same(new: list[tuple[str, float]], old: list[tuple[str, float]], tie: float, depth: int) -> bool:
    scores, beyond = dict(old), old[-1][1] if len(old) == depth else float("-inf")
    return len(new) == len(old) and all(abs(scores.get(pid, beyond) - score) <= tie for (pid, _), (_, score) in zip(new, old, strict=True))
