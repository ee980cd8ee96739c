"""Indexes over sparse vectors: exact products of CSR matrices, and Lucene's inverted index over weights rounded to integer impacts."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix

from curriculum.artifacts import IndexArtifact
from curriculum.errors import DataError
from curriculum.learned_sparse.encoder import SparseTexts
from curriculum.learned_sparse.settings import LearnedSparseSettings
from curriculum.retrieval.bm25 import Hits
from curriculum.retrieval.hybrid import ranked
from curriculum.retrieval.java import lucene_searcher, prepare_java, quiet_java
from curriculum.retrieval.passages import contents
from curriculum.storage import digest_of

SHARD = 256
VECTORS, _IDS, _LUCENE = "vectors.safetensors", "ids.json", "impact"


def save_rows(path: Path, rows: csr_matrix, metadata: dict[str, str] | None = None) -> None:
    """Write a CSR matrix as safetensors: ``data`` float32, ``indices`` int32, ``indptr`` int64, ``shape``."""
    parts = {"data": rows.data.astype(np.float32), "indices": rows.indices.astype(np.int32), "indptr": rows.indptr.astype(np.int64)}
    tensors = {name: torch.from_numpy(part) for name, part in parts.items()} | {"shape": torch.tensor(rows.shape)}
    save_file(tensors, path, metadata=metadata)


def load_rows(path: Path) -> csr_matrix:
    """What :func:`save_rows` wrote."""
    held = {name: tensor.numpy() for name, tensor in load_file(path).items()}
    return csr_matrix((held["data"], held["indices"], held["indptr"]), shape=tuple(held["shape"].tolist()))


def rounded(rows: csr_matrix, scale: int) -> csr_matrix:
    """Weights times ``scale`` as whole numbers, int64; what rounds to 0 is no posting any more."""
    whole = np.rint(rows.data * scale).astype(np.int64)
    made = csr_matrix((whole, rows.indices, rows.indptr), shape=rows.shape, copy=True)  # what follows writes into its arrays
    made.eliminate_zeros()
    return made


def build_sparse_index(
    passages: pd.DataFrame, encoder: SparseTexts, settings: LearnedSparseSettings, *,
    out: Path, checkpoints: Path, progress: Callable[[str], None],
) -> IndexArtifact:  # fmt: skip
    """Write ``out/COLLECTION/{vectors.safetensors, ids.json, impact/}`` for every collection.

    Encoded shards are kept in ``checkpoints``, which is of this encoder alone: a kill loses one.

    Raises:
        DataError: there are no passages, or the encoder gave weights that are not finite.
    """
    if passages.empty:
        raise DataError("there are no passages to encode")
    counts = {}
    for collection, group in passages.groupby("collection", sort=True):
        texts, shards = contents(group), list[csr_matrix]()
        for start in range(0, len(texts), SHARD):
            part = texts[start : start + SHARD]
            digest = digest_of([settings.max_tokens, part])
            path = checkpoints / f"{digest[:20]}.safetensors"
            if not path.exists():
                unfinished = path.with_suffix(".part")
                save_rows(unfinished, encoder.passages(part))
                unfinished.replace(path)
            shards.append(load_rows(path))
            progress(f"{collection}: {min(start + SHARD, len(texts))}/{len(texts)} passages")
        write_index(out / str(collection), group["passage_id"].astype(str).tolist(), _stacked(shards), settings.impact_scale)
        counts[str(collection)] = len(texts)
    return IndexArtifact(out, {"passages": counts, "impact_scale": settings.impact_scale, "vocabulary": encoder.vocabulary})


def _stacked(shards: Sequence[csr_matrix]) -> csr_matrix:
    from scipy.sparse import vstack

    rows = csr_matrix(vstack(shards))
    if not np.isfinite(rows.data).all():
        raise DataError("the sparse encoder gives weights that are not finite; its training diverged: lower learned_sparse.learning_rate")
    return rows


def write_index(folder: Path, ids: list[str], rows: csr_matrix, scale: int) -> None:
    """Write one collection: its vectors as they are, and Lucene's index of their impacts."""
    folder.mkdir(parents=True)
    save_rows(folder / VECTORS, rows)
    (folder / _IDS).write_text(json.dumps(ids), encoding="utf-8")
    prepare_java()
    from pyserini.index.lucene import LuceneIndexer

    quiet_java()
    where = str(folder / _LUCENE)
    indexer = LuceneIndexer(args=["-index", where, "-impact", "-pretokenized"], threads=1)
    whole = rounded(rows, scale)
    for start in range(0, len(ids), SHARD):
        indexer.add_batch_dict([{"id": ids[row], "contents": _repeated(whole, row)} for row in range(start, min(start + SHARD, len(ids)))])
    indexer.close()
    (folder / _LUCENE / "write.lock").unlink(missing_ok=True)


def _repeated(impacts: csr_matrix, row: int) -> str:
    """A passage as Lucene reads impacts: each term, here by its number, as many times as it weighs."""
    places = slice(impacts.indptr[row], impacts.indptr[row + 1])
    return " ".join(np.repeat(impacts.indices[places].astype(str), impacts.data[places]).tolist())


class SparseIndex:
    """The vectors of one collection in ``path`` as :func:`build_sparse_index` writes them; or any ``rows`` for the same ids.

    Raises:
        DataError: there is no such collection.
    """

    def __init__(self, path: Path, collection: str = "project", rows: csr_matrix | None = None) -> None:
        self.folder = path / collection
        if not self.folder.exists():
            raise DataError(f"the sparse index {path} holds no collection '{collection}'; materialise sparse_index with it")
        self.ids: list[str] = json.loads((self.folder / _IDS).read_text(encoding="utf-8"))
        self.rows = load_rows(self.folder / VECTORS) if rows is None else rows
        self._terms = self.rows.T.tocsr()  # a row a term: its postings

    def scores(self, queries: csr_matrix) -> np.ndarray:
        """Inner products [queries, passages], float32."""
        return np.asarray((queries @ self._terms).todense())

    def search(self, queries: csr_matrix, k: int) -> Hits:
        """For each query its ``k`` best (passage_id, inner product), best first; a passage that shares no term is no hit."""
        found = (queries @ self._terms).tocsr()
        hits = []
        for row in range(found.shape[0]):
            places = slice(found.indptr[row], found.indptr[row + 1])
            columns, scores = found.indices[places], found.data[places]
            if len(scores) > k:
                best = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
                columns, scores = columns[best], scores[best]
            hits.append(ranked({self.ids[c]: float(s) for c, s in zip(columns, scores, strict=True) if s > 0}, k))
        return hits


class ImpactIndex:
    """Lucene's index of the same collection. Scores are whole numbers: the products of rounded weights."""

    def __init__(self, path: Path, collection: str, scale: int) -> None:
        lucene_searcher()  # knows how pyserini's searchers can be imported
        from pyserini.search.lucene import LuceneImpactSearcher

        self._scale, self._encoded = scale, _Encoded()
        # by default terms of idf 0, which stand in every passage, are left out of the query: their scores would be missing
        self._searcher: Any = LuceneImpactSearcher(str(path / collection / _LUCENE), self._encoded, min_idf=-np.inf)
        weakref.finalize(self, self._searcher.close).atexit = False

    def search(self, queries: csr_matrix, k: int) -> Hits:
        """For each query its ``k`` best (passage_id, product of impacts), best first."""
        whole, hits = rounded(queries, self._scale), []
        for row in range(whole.shape[0]):
            places = slice(whole.indptr[row], whole.indptr[row + 1])
            weights = zip(whole.indices[places].tolist(), whole.data[places].tolist(), strict=True)
            self._encoded.weights = {str(term): int(weight) for term, weight in weights}
            found = self._searcher.search("", k) if self._encoded.weights else []
            # Anserini takes a millionth from each of a row of equal scores (ScoreTiesAdjusterReranker); whole numbers have no tenths
            hits.append(ranked({h.docid: round(float(h.score), 1) for h in found}, k))
        return hits


class _Encoded:
    """What pyserini calls an encoder of queries: it gives the weights that were put into it."""

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}

    def encode(self, text: str) -> dict[str, int]:
        """The weights of the query at hand, by term."""
        return self.weights
