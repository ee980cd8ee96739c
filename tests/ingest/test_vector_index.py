"""An index of vectors brought up to date is the one made anew, or as good as it; a killed one goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from curriculum.artifacts import DirectoryArtifact
from curriculum.ingest import vector_index
from curriculum.ingest.graph import bereft, without
from curriculum.ingest.vector_index import Change, build_vectors
from curriculum.retrieval.dense import DenseIndex
from curriculum.vector_search.kinds import Codes, build, vectors_of
from curriculum.vector_search.parts import add_by_parts
from curriculum.vector_search.scale import kth_best, recalls, rows_found
from curriculum.vector_search.settings import VectorSearchSettings

FEW: dict[str, Any] = {"links": 8, "ef_construction": 40, "ef_search": 32, "code_bytes": 8, "cells_factor": 0.5, "probes": 8}
KINDS = {
    "flat": VectorSearchSettings(**FEW), "hnsw": VectorSearchSettings(scan_ms=1e-9, **FEW),
    "ivf_pq_rescored": VectorSearchSettings(scan_ms=1e-9, memory_gb=1e-9, **FEW),
}  # fmt: skip
COUNT, DIMENSION, SHARD = 1500, 32, 400
_RNG = np.random.default_rng(0)
_DRAWN = _RNG.standard_normal((2 * COUNT, 8)) @ _RNG.standard_normal((8, DIMENSION)) + 0.3 * _RNG.standard_normal((2 * COUNT, DIMENSION))
POOL = (_DRAWN / np.linalg.norm(_DRAWN, axis=1, keepdims=True)).astype(np.float32)


class Versions:
    """Indexes of one corpus, each from the one before: passage ``p7`` has the vector ``POOL[7]``."""

    def __init__(self, work: Path) -> None:
        self.work, self.number, self.said = work, 0, list[str]()
        self.rows: list[int] = []
        self.latest: Path | None = None

    def vectors(self, rows: list[int], how: str = "encoder") -> DirectoryArtifact:
        folder = self.work / f"vectors-{self.number}" / "own"
        if not folder.exists():
            folder.mkdir(parents=True)
            for n, at in enumerate(range(0, len(rows), SHARD)):
                save_file({"vectors": torch.from_numpy(POOL[rows[at : at + SHARD]])}, folder / f"vectors-{n:05d}.safetensors")
            (folder / "ids.json").write_text(json.dumps([f"p{row}" for row in rows]))
        return DirectoryArtifact(folder.parent, {"name": "own", "dimension": DIMENSION, "how": how, "passages": {"own": len(rows)}})

    def change(self, rows: list[int]) -> Change:
        gone, new = ({f"p{row}" for row in set(a) - set(b)} for a, b in ((self.rows, rows), (rows, self.rows)))
        return Change(self.latest, len(self.rows), gone if self.latest else set(), new)

    def next(
        self, rows: list[int], kind: str, *, how: str = "encoder", codes: Codes | None = None, progress: Callable[[str], None] | None = None,
        again: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """What is known of the next version; ``again`` goes on with what a killed call for the same version left."""
        self.number += not again
        out = self.work / f"index-{self.number}"
        known = build_vectors(self.vectors(rows, how), KINDS[kind], out / "dense", self.change(rows), codes=codes, progress=progress or self.said.append)
        assert known["kinds"] == {"own": kind}
        self.latest, self.rows = out, rows
        return known

    def index(self) -> DenseIndex:
        assert self.latest is not None
        return DenseIndex(self.latest / "dense", "own")

    def bytes(self) -> bytes:
        assert self.latest is not None
        return (self.latest / "dense" / "own" / "index.faiss").read_bytes()

    def recall(self) -> float:
        """Recall@10 of 200 vectors near those of the pool, against the exact scan of what the index is to hold."""
        asked = POOL[::15] + 0.05 * np.random.default_rng(3).standard_normal((200, DIMENSION)).astype(np.float32)
        held, index = POOL[self.rows], self.index()
        found = rows_found(index.search(asked, 10), [f"p{row}" for row in self.rows], 10)
        assert set(index.ids) == {f"p{row}" for row in self.rows} and len(index.ids) == len(self.rows)
        return float(recalls(found, held, asked, kth_best(held, asked, 10)).mean())


FIRST = list(range(COUNT))
NEXT = [row + COUNT if row % 20 == 0 else row for row in range(COUNT) if row % 50 != 7]  # a twentieth is replaced, a fiftieth is gone
CHANGES = COUNT // 50 + 2 * COUNT // 20


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path / "own")


@pytest.fixture
def anew(tmp_path: Path) -> Versions:
    return Versions(tmp_path / "anew")


def test_a_flat_index_is_the_one_made_anew_byte_for_byte(versions: Versions, anew: Versions) -> None:
    versions.next(FIRST, "flat")
    assert versions.next(NEXT, "flat")["drift"] == 0
    anew.next(NEXT, "flat")
    assert versions.bytes() == anew.bytes() and versions.recall() == 1.0


def test_codes_are_those_of_the_trained_index_filled_anew(versions: Versions, anew: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    first = versions.next(FIRST, "ivf_pq_rescored")
    trained = faiss.read_index(str(versions.latest / "dense" / "own" / "index.faiss"))  # type: ignore[operator]
    coded = faiss.downcast_index(trained.base_index)
    asked, real = list[int](), faiss.IndexIVFPQ.sa_encode
    monkeypatch.setattr(faiss.IndexIVFPQ, "sa_encode", lambda self, vectors: asked.append(len(vectors)) or real(self, vectors))
    second = versions.next(NEXT, "ivf_pq_rescored")
    assert first["drift"] == 0 and second == {**second, "built_of": COUNT, "drift": CHANGES} and sum(asked) == COUNT // 20
    coded.reset()
    trained.refine_index.reset()
    trained.ntotal = 0
    trained.add(POOL[NEXT])
    assert versions.bytes() == faiss.serialize_index(trained).tobytes()
    anew.next(NEXT, "ivf_pq_rescored")
    print(f"recall of codes: brought up to date {versions.recall():.4f}, anew {anew.recall():.4f}")
    assert versions.bytes() != anew.bytes() and versions.recall() > anew.recall() - 0.02 and anew.recall() > 0.9


def test_a_graph_loses_and_gains_vertices_and_finds_what_one_made_anew_finds(versions: Versions, anew: Versions) -> None:
    versions.next(FIRST, "hnsw")
    versions.said.clear()
    second = versions.next(NEXT, "hnsw")
    assert second["built_of"] == COUNT and second["drift"] == CHANGES
    left, last = (int(line.split()[0]) for line in (versions.said[0], versions.said[-1]))
    assert last == len(NEXT) and 0.9 * len(NEXT) < left <= len(NEXT) - COUNT // 20  # the others were not linked again
    anew.next(NEXT, "hnsw")
    print(f"recall of the graph: brought up to date {versions.recall():.4f}, anew {anew.recall():.4f}")
    assert versions.recall() > anew.recall() - 0.02 and anew.recall() > 0.95
    hits = versions.index().search(POOL[NEXT], 1)
    assert np.mean([own[0][0] == f"p{row}" for own, row in zip(hits, NEXT, strict=True)]) > 0.995
    third = versions.next(NEXT[:-1], "hnsw")
    assert third["drift"] == CHANGES + 1 and versions.recall() > 0.95


def test_vertices_whose_neighbours_all_go_are_linked_anew_and_are_lost_otherwise() -> None:
    graph = build("hnsw", POOL[:COUNT], KINDS["hnsw"]).index
    near = np.argsort(-(POOL[:COUNT] @ POOL[0]))
    gone = np.zeros(COUNT, dtype=bool)
    gone[near[1:200]] = True  # all about the first, not itself
    goes = bereft(graph, gone)
    assert goes[0] and (goes & ~gone).sum() < 200 and not goes[near[600:]].any()
    alone, linked = without(graph, gone), without(graph, goes)
    again = np.flatnonzero(goes & ~gone)
    linked.add(POOL[again])
    stay = np.concatenate([np.flatnonzero(~goes), again])
    for made, rows in ((alone, np.flatnonzero(~gone)), (linked, stay)):
        np.testing.assert_array_equal(vectors_of(made), POOL[rows])
    neighbours = [faiss.rev_swig_ptr(made.hnsw.neighbors.data(), 16) for made in (alone, without(graph, np.zeros(COUNT, dtype=bool)))]
    assert (neighbours[0] >= 0).sum() < (neighbours[1] >= 0).sum() / 2  # what is left of the first vertex's links
    assert linked.search(POOL[:1], 1)[1][0, 0] == np.flatnonzero(stay == 0)[0]


def test_too_much_change_another_encoder_or_other_settings_make_it_anew(versions: Versions) -> None:
    versions.next(FIRST, "hnsw")
    some, more = list(range(300, COUNT + 300)), list(range(400, COUNT + 400))
    assert versions.next(some, "hnsw")["drift"] == 600  # of 1500
    known = versions.next(more, "hnsw")  # and 200 more are too many
    assert (known["built_of"], known["drift"]) == (COUNT, 0) and versions.recall() > 0.95
    assert versions.next(FIRST, "hnsw", how="another")["drift"] == 0
    assert versions.next(NEXT, "ivf_pq_rescored")["drift"] == 0  # another kind


def test_a_killed_graph_goes_on_with_the_piece_where_it_was(versions: Versions, anew: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_index, "PIECE", 250)

    def killed(line: str) -> None:
        if line.startswith("750 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        versions.next(FIRST, "hnsw", progress=killed)
    versions.next(FIRST, "hnsw", again=True)
    anew.next(FIRST, "hnsw")
    assert versions.said == [f"{count} of 1500 vectors linked" for count in (750, 1000, 1250, 1500)] and len(anew.said) == 6
    assert versions.bytes() == anew.bytes() and versions.recall() > 0.95
    versions.said.clear()
    versions.next(FIRST, "hnsw", again=True)  # it was whole: nothing is done
    assert versions.said == []


def test_codes_made_elsewhere_are_taken_where_an_index_is_made_anew(versions: Versions, anew: Versions) -> None:
    filled = list[int]()

    def codes(index: Any, vectors: np.ndarray) -> None:
        filled.append(len(vectors))
        add_by_parts(index, vectors, size=400)

    versions.next(FIRST, "ivf_pq_rescored", codes=codes)
    anew.next(FIRST, "ivf_pq_rescored")
    assert filled == [COUNT] and versions.bytes() == anew.bytes()
