"""The kinds of vector index by faiss: their arithmetic, which one a corpus needs, how each is built and searched on one thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np

from curriculum.errors import DataError
from curriculum.vector_search.settings import VectorSearchSettings

Codes = Callable[[Any, np.ndarray], None]  # fills a trained index with vectors
Kind = Literal["flat", "hnsw", "ivf_pq", "ivf_pq_rescored"]
KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivf_pq", "ivf_pq_rescored")
CENTROIDS = 256  # of a codebook: a code is a byte a part
TRAINING_POINTS = 39  # a cell: with fewer, faiss says that its k-means has too few points
UNIT = 1e-3


@contextmanager
def one_thread() -> Iterator[None]:
    """faiss on one thread: a graph is then the same in every run, and a time is a core's."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def cells(passages: int, settings: VectorSearchSettings) -> int:
    """Cells of the coarse quantiser: some roots of the number of vectors, and enough vectors for each."""
    return max(1, min(round(settings.cells_factor * math.sqrt(passages)), passages // TRAINING_POINTS))


def code_bytes(dimension: int, settings: VectorSearchSettings) -> int:
    """Parts of a code, a byte each: the greatest divisor of the dimension that is allowed."""
    return max(m for m in range(1, settings.code_bytes + 1) if dimension % m == 0)


def index_bytes(kind: Kind, passages: int, dimension: int, settings: VectorSearchSettings) -> float:
    """Bytes of an index over float32 vectors [passages, dimension].

    flat: 4 d a vector. HNSW: also 2 M links of 4 bytes on the bottom layer, an M/(M-1)th part of one more on the upper ones, and 12 bytes
    of place and level. IVF-PQ: a code and an id of 8 bytes a vector, the cells' centroids and the codebooks. Re-scored: and the vectors.
    """
    vectors, links = 4.0 * dimension * passages, settings.links
    codes = passages * (code_bytes(dimension, settings) + 8) + 4 * dimension * (cells(passages, settings) + CENTROIDS)
    graph = passages * (8 * links + 4 * links / (links - 1) + 12)
    return {"flat": vectors, "hnsw": vectors + graph, "ivf_pq": codes, "ivf_pq_rescored": vectors + codes}[kind]


def scan_ms(passages: int, dimension: int, settings: VectorSearchSettings) -> float:
    """Milliseconds of one query against a flat index, which reads all of it."""
    return 4.0 * dimension * passages / (settings.scan_gb_s * 1e6)


def choose_kind(passages: int, dimension: int, settings: VectorSearchSettings) -> Kind:
    """The simplest index that is fast enough and fits: flat while its scan is short, the graph while it fits memory, else re-scored codes.

    Of the last one only the codes must be in memory: a query reads ``rescored`` vectors, which may lie in a mapped file.
    """
    budget = settings.memory_gb * 1e9
    if scan_ms(passages, dimension, settings) <= settings.scan_ms and index_bytes("flat", passages, dimension, settings) <= budget:
        return "flat"
    return "hnsw" if index_bytes("hnsw", passages, dimension, settings) <= budget else "ivf_pq_rescored"


@dataclass
class VectorIndex:
    """A built index: faiss's own, and what of it counts the work."""

    kind: Kind
    index: Any
    settings: VectorSearchSettings
    seconds: float = 0.0
    owner: Any = None  # faiss frees a part with the whole: who holds the part must hold the whole

    @property
    def _inner(self) -> Any:
        return faiss.downcast_index(self.index.base_index) if self.kind == "ivf_pq_rescored" else self.index

    def codes(self) -> VectorIndex:
        """The codes of a re-scored index alone, without another training."""
        return VectorIndex("ivf_pq", self._inner, self.settings, self.seconds, owner=self.index)

    def effort(self, value: int) -> VectorIndex:
        """Set what trades recall for time, ``ef_search`` of the graph or ``probes`` of the cells; a flat index has nothing to set."""
        if self.kind == "hnsw":
            self.index.hnsw.efSearch = value
        elif self.kind != "flat":
            self._inner.nprobe = value
        return self

    def bytes(self) -> int:
        """Bytes of the index as it is written."""
        return int(faiss.serialize_index(self.index).nbytes)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Rows of the ``k`` nearest vectors of each query [queries, dimension], best first: int64 [queries, k]; -1 where fewer were found."""
        if self.kind == "ivf_pq_rescored":
            self.index.k_factor = max(1.0, self.settings.rescored / k)
        return self.index.search(queries, k)[1]

    def read_bytes(self, queries: np.ndarray, k: int) -> float:
        """Mean bytes that a query reads: whole vectors compared, and codes. It counts work and does not depend on the machine's load."""
        dimension, inner = queries.shape[1], self._inner
        if self.kind == "flat":
            return 4.0 * dimension * self.index.ntotal
        graph, lists = faiss.cvar.hnsw_stats, faiss.cvar.indexIVF_stats
        graph.reset()
        lists.reset()
        self.search(queries, k)
        if self.kind == "hnsw":
            return 4.0 * dimension * graph.ndis / len(queries)
        codes = lists.ndis / len(queries) * inner.pq.M + 4.0 * dimension * inner.nlist
        return codes + (4.0 * dimension * self.settings.rescored if self.kind == "ivf_pq_rescored" else 0.0)


def build(kind: Kind, vectors: np.ndarray, settings: VectorSearchSettings, seed: int = 0, codes: Codes | None = None) -> VectorIndex:
    """An inner-product index of unit ``vectors`` [passages, dimension], float32, in their order.

    ``codes`` fills a trained IVF-PQ index in faiss's place, to the same content.

    Raises:
        DataError: the vectors are not of unit length, or too few to train codes from.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    if len(vectors) == 0 or not np.abs(lengths - 1).max() < UNIT:
        raise DataError("a vector index needs vectors of unit length; set an encoder whose similarity is the cosine (retrieval.encoder)")
    if kind.startswith("ivf") and len(vectors) < CENTROIDS:
        raise DataError(f"{len(vectors)} vectors are too few for codebooks of {CENTROIDS} entries; use a flat index")
    made, begun = _empty(kind, *vectors.shape, settings, seed), time.perf_counter()
    if not made.is_trained:
        made.train(vectors)
    if codes is None or not kind.startswith("ivf"):
        made.add(vectors)
    else:
        codes(faiss.downcast_index(made.base_index) if kind == "ivf_pq_rescored" else made, vectors)
        if kind == "ivf_pq_rescored":
            made.refine_index.add(vectors)
            made.ntotal = made.refine_index.ntotal
    index = VectorIndex(kind, made, settings, time.perf_counter() - begun)
    return index.effort(settings.ef_search if kind == "hnsw" else settings.probes)


def vectors_of(index: Any) -> np.ndarray:
    """The vectors that an index of a kind that keeps them was given, float32 [vectors, dimension], in place: they go with the index."""
    held = index.refine_index if isinstance(index, faiss.IndexRefineFlat) else index.storage if isinstance(index, faiss.IndexHNSW) else index
    return faiss.rev_swig_ptr(faiss.downcast_index(held).get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)


def chosen(flat: Any, settings: VectorSearchSettings, seed: int = 0, codes: Codes | None = None) -> tuple[Kind, Any]:
    """The kind that the size of a filled flat index asks for, and its vectors under it: the index itself where it stays flat.

    A graph and codes are for unit vectors: those of an encoder that is made for the dot product stay flat at any size.
    """
    kind, vectors = choose_kind(flat.ntotal, flat.d, settings), vectors_of(flat)
    if kind == "flat" or np.abs(np.linalg.norm(vectors, axis=1) - 1).max() >= UNIT:
        return "flat", flat
    with one_thread():
        return kind, build(kind, vectors, settings, seed, codes).index


def _empty(kind: Kind, passages: int, dimension: int, settings: VectorSearchSettings, seed: int) -> Any:
    if kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dimension, settings.links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = settings.ef_construction
        return graph
    coarse = faiss.IndexFlatIP(dimension)
    coded = faiss.IndexIVFPQ(
        coarse, dimension, cells(passages, settings), code_bytes(dimension, settings), 8, faiss.METRIC_INNER_PRODUCT
    )  # fmt: skip
    for clustering in (coded.cp, coded.pq.cp):
        clustering.seed, clustering.min_points_per_centroid = seed + 1, 1  # faiss reads a small set's codebooks as a mistake
    coded.cp.spherical = True
    if kind == "ivf_pq":
        return coded
    rescored = faiss.IndexRefineFlat(coded)
    rescored.k_factor = settings.rescored / settings.k  # kept in the file
    return rescored
