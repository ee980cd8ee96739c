"""HNSW graphs (Malkov and Yashunin, 2018) that vectors are taken out of and added to, which faiss does only half of: it adds.

A vertex that goes leaves its place in others' lists of links. Those who lost more than half of their links by it are taken out too and linked
anew, so what is left hangs together; the recall of what comes out is measured beside that of a graph built anew (``tests/ingest``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import faiss
import numpy as np

from curriculum.vector_search.kinds import one_thread, vectors_of

PIECE = 50_000  # vectors that are linked before the graph is kept: a minute or two
_LOST = 0.5  # share of its links; a vertex that lost more is linked anew
_BLOCK = 65_536  # vertices looked at together: 17 MB of links


def link(graph: Any, pieces: Iterable[np.ndarray], keep: Callable[[Any], None]) -> None:
    """Add ``pieces`` [vectors, dimension] to the graph one after another, and ``keep`` it after each.

    The layers of a piece's vertices are drawn by where it begins: a graph that was read from its file goes on as the one in memory would have.
    """
    for piece in pieces:
        graph.hnsw.rng = faiss.RandomGenerator(12345 + graph.ntotal)  # faiss's own seed, which a graph that is read begins at again
        with one_thread():
            graph.add(piece)
        keep(graph)


def bereft(graph: Any, gone: np.ndarray) -> np.ndarray:
    """Which vertices go, bool [vertices]: those of ``gone``, and those who would lose more than half of the links on their bottom layer."""
    links, offsets, _ = _arrays(graph)
    width, goes = graph.hnsw.nb_neighbors(0), gone.copy()
    while True:
        more = np.zeros(len(goes), dtype=bool)
        for at in range(0, len(goes), _BLOCK):
            own = links[offsets[at : min(at + _BLOCK, len(goes)), None] + np.arange(width)]
            there = own >= 0
            more[at : at + _BLOCK] = (goes[own] & there).sum(axis=1) > _LOST * there.sum(axis=1)
        if not (more & ~goes).any():
            return goes
        goes |= more


def without(graph: Any, goes: np.ndarray) -> Any:
    """A graph of the vertices that stay, in their order, with the links among them; ``goes``: bool [vertices]."""
    links, offsets, levels = _arrays(graph)
    stay = np.flatnonzero(~goes)
    place = np.full(len(goes) + 1, -1, dtype=np.int32)  # the last entry is that of -1, no link
    place[stay] = np.arange(len(stay))
    starts = np.concatenate([[0], np.cumsum(np.diff(offsets)[stay])])
    kept = np.full(starts[-1], -1, dtype=np.int32)
    for level in range(graph.hnsw.max_level + 1):
        first, width = graph.hnsw.cum_nb_neighbors(level), graph.hnsw.nb_neighbors(level)
        there = np.flatnonzero(levels[stay] > level)
        for at in range(0, len(there), _BLOCK):
            rows = there[at : at + _BLOCK]
            own = place[links[offsets[stay[rows], None] + first + np.arange(width)]]
            order = np.argsort(own < 0, axis=1, kind="stable")  # a list of links ends at its first -1
            kept[starts[rows, None] + first + np.arange(width)] = np.take_along_axis(own, order, axis=1)
    made = faiss.IndexHNSWFlat(graph.d, graph.hnsw.nb_neighbors(1), faiss.METRIC_INNER_PRODUCT)
    new = made.hnsw
    new.efConstruction, new.efSearch = graph.hnsw.efConstruction, graph.hnsw.efSearch
    faiss.copy_array_to_vector(levels[stay], new.levels)
    faiss.copy_array_to_vector(starts.astype(np.uint64), new.offsets)
    new.neighbors.resize(len(kept))
    faiss.rev_swig_ptr(new.neighbors.data(), len(kept))[:] = kept
    new.max_level = int(levels[stay].max()) - 1
    new.entry_point = int(np.argmax(levels[stay]))
    held, storage = vectors_of(graph), faiss.downcast_index(made.storage)
    for at in range(0, len(stay), _BLOCK):
        storage.add(held[stay[at : at + _BLOCK]])
    made.ntotal = len(stay)
    return made


def _arrays(graph: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The links of all vertices in place, int32; where each vertex's begin, int64 [vertices + 1]; the layers each is on, int32 [vertices]."""
    links = faiss.rev_swig_ptr(graph.hnsw.neighbors.data(), graph.hnsw.neighbors.size())
    return links, faiss.vector_to_array(graph.hnsw.offsets).astype(np.int64), faiss.vector_to_array(graph.hnsw.levels)
