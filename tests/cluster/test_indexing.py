"""Codes made in parts are the codes made at once; a part in another's place would be seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import faiss
import numpy as np
import pytest

from curriculum.cluster.indexing import codes_by
from curriculum.hardware import ComputeSettings
from curriculum.vector_search.kinds import Kind, build
from curriculum.vector_search.parts import add_by_parts, here
from curriculum.vector_search.settings import VectorSearchSettings

SETTINGS = VectorSearchSettings(code_bytes=4, cells_factor=0.3)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    made = np.random.default_rng(0).standard_normal((900, 16)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["ivf_pq", "ivf_pq_rescored"])
def test_parts_merge_to_the_index_that_was_filled_at_once(vectors: np.ndarray, kind: Kind) -> None:
    at_once = build(kind, vectors, SETTINGS)
    merged = build(kind, vectors, SETTINGS, codes=lambda index, given: add_by_parts(index, given, size=250))
    assert merged.index.ntotal == 900
    np.testing.assert_array_equal(faiss.serialize_index(merged.index), faiss.serialize_index(at_once.index))
    np.testing.assert_array_equal(merged.search(vectors[:50], 10), at_once.search(vectors[:50], 10))


def test_parts_in_another_order_would_be_seen(vectors: np.ndarray) -> None:
    def backwards(trained: np.ndarray, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return reversed(list(here(trained, parts)))  # type: ignore[return-value]

    at_once = build("ivf_pq", vectors, SETTINGS)
    mixed = build("ivf_pq", vectors, SETTINGS, codes=lambda index, given: add_by_parts(index, given, backwards, size=250))
    assert mixed.index.ntotal == 900 and not np.array_equal(mixed.search(vectors[:50], 10), at_once.search(vectors[:50], 10))


def test_only_the_engine_ray_asks_for_a_cluster() -> None:
    assert codes_by(ComputeSettings(), print) is None
    assert codes_by(ComputeSettings(engine="ray"), print) is not None
