"""Codes of vectors made in parts: a trained index is filled with each part alone, and the parts are merged in their order.

A vector's cell and code depend on the training alone, not on the other vectors, so the merged index is the one that was filled at once.
That holds of no graph: a vector's links in HNSW depend on what was there before it, and faiss merges no graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import faiss
import numpy as np

from curriculum.vector_search.kinds import one_thread

PART = 16_384  # vectors: 25 MB of 384 numbers
Run = Callable[[np.ndarray, Iterable[np.ndarray]], Iterator[np.ndarray]]


def filled(trained: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """An empty trained index with ``vectors`` [part, dimension] in it; both indexes as faiss serialises them, uint8 [bytes]."""
    index = faiss.deserialize_index(trained)
    with one_thread():
        index.add(vectors)
    return faiss.serialize_index(index)


def here(trained: np.ndarray, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The parts one after another, in this process."""
    return (filled(trained, part) for part in parts)


def add_by_parts(index: Any, vectors: np.ndarray, run: Run = here, size: int = PART) -> None:
    """Fill the trained inverted file ``index`` with ``vectors`` [vectors, dimension]; ``run`` gives the filled parts in their order."""
    trained = faiss.serialize_index(index)
    parts = (np.ascontiguousarray(vectors[start : start + size]) for start in range(0, len(vectors), size))
    for part in run(trained, parts):
        index.merge_from(faiss.deserialize_index(np.array(part)), index.ntotal)
