"""The chunkings that are tried: each is cut, encoded and indexed once, and searched by every trial that asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from curriculum.reranking.reranker import passage_texts
from curriculum.retrieval.bm25 import Bm25Index, Hits, build_bm25
from curriculum.retrieval.dense import DenseIndex, Encoder, build_dense, embed_passages
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.search_tuning.questions import cut, places_of
from curriculum.search_tuning.settings import SearchSetting
from curriculum.vector_search.settings import VectorSearchSettings


@dataclass(frozen=True)
class Chunking:
    """Passages of one length and their indexes. ``place_of``, ``texts`` and ``words``: of each passage id, its place, its text as the
    cross-encoder reads it, and its length in words."""

    place_of: dict[str, str]
    texts: dict[str, str]
    words: dict[str, int]
    bm25: Path
    dense: Path

    def hits(self, queries: list[str], vectors: np.ndarray, setting: SearchSetting) -> tuple[Hits, Hits]:
        """What BM25 and the dense leg find, each ``setting.depth`` a query; ``vectors`` [queries, dimension] are those of ``queries``."""
        lexical = Bm25Index(self.bm25, k1=setting.k1, b=setting.b).search(queries, setting.depth)
        return lexical, DenseIndex(self.dense).search(vectors, setting.depth)


def chunking_of(passages: pd.DataFrame, whole: pd.DataFrame, bm25: Path, dense: Path) -> Chunking:
    """A chunking that is indexed already; ``whole`` are the places that its passages were cut from."""
    words = dict(zip(passages["passage_id"], passages["text"].str.split().str.len(), strict=True))
    return Chunking(places_of(passages, whole), passage_texts(passages), words, bm25, dense)


@dataclass(frozen=True)
class Workshop:
    """Makes chunkings of ``documents``, in ``folder``, with what a killed run finished kept there."""

    documents: pd.DataFrame
    whole: pd.DataFrame
    encoder: Encoder
    retrieval: RetrievalSettings
    vector_search: VectorSearchSettings
    folder: Path
    progress: Callable[[str], None]

    def make(self, words: int) -> Chunking:
        """The chunking of at most ``words`` words a passage, from before where it was made whole."""
        passages, made = cut(self.documents, words), self.folder / f"words-{words}"
        if not made.exists():
            self._index(passages, made, words)
        return chunking_of(passages, self.whole, made / "bm25", made / "dense")

    def _index(self, passages: pd.DataFrame, made: Path, words: int) -> None:
        self.progress(f"passages of {words} words: {len(passages)} to encode and index")
        part, shards = made.with_suffix(".part"), self.folder / f"shards-{words}"
        shutil.rmtree(part, ignore_errors=True)
        shards.mkdir(parents=True, exist_ok=True)
        build_bm25(passages, self.retrieval, part / "bm25")
        vectors = embed_passages(passages, self.encoder, self.retrieval, part / "vectors", shards, self.progress)
        build_dense(vectors, part / "dense", self.vector_search)
        part.rename(made)
        shutil.rmtree(shards)
