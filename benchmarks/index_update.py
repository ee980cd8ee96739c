"""A vector index brought up to date against one built anew: seconds and recall of each kind after a share of the vectors was replaced.

python -m benchmarks.index_update [--vectors 100000] [--changed 0.01] [--kinds flat,hnsw,ivf_pq_rescored]

Vectors of 384 numbers about 200 centres in 48 dimensions, with noise; one thread. Seconds are the processor's. Recall@10 is against the exact
scan, of 200 queries drawn as the vectors are. At 100,000 vectors building the graph takes some minutes, and training the cells one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from curriculum.artifacts import DirectoryArtifact
from curriculum.hardware import describe_hardware, use_threads
from curriculum.ingest.vector_index import Change, build_vectors
from curriculum.retrieval.dense import DenseIndex
from curriculum.vector_search.scale import kth_best, recalls, rows_found
from curriculum.vector_search.settings import VectorSearchSettings

DIMENSION, SHARD, QUERIES = 384, 512, 200
CHOSEN = {  # what makes choose_kind choose it at any size
    "flat": {"scan_ms": 1e9, "memory_gb": 1e9}, "hnsw": {"scan_ms": 1e-9, "memory_gb": 1e9},
    "ivf_pq_rescored": {"scan_ms": 1e-9, "memory_gb": 1e-9},
}  # fmt: skip


def drawn(count: int) -> np.ndarray:
    """Unit vectors [count, 384]."""
    rng = np.random.default_rng(0)
    centres, basis = rng.standard_normal((200, 48), dtype=np.float32), rng.standard_normal((48, DIMENSION), dtype=np.float32)
    inner = centres[rng.integers(0, 200, count)] + 0.7 * rng.standard_normal((count, 48), dtype=np.float32)
    made = inner @ basis + rng.standard_normal((count, DIMENSION), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def written(folder: Path, rows: np.ndarray, pool: np.ndarray) -> DirectoryArtifact:
    """The vectors ``pool[rows]`` in shards, as a corpus keeps them, under the ids of their rows."""
    import torch
    from safetensors.torch import save_file

    (folder / "own").mkdir(parents=True)
    for number, at in enumerate(range(0, len(rows), SHARD)):
        save_file({"vectors": torch.from_numpy(pool[rows[at : at + SHARD]])}, folder / "own" / f"vectors-{number:05d}.safetensors")
    (folder / "own" / "ids.json").write_text(json.dumps([str(row) for row in rows]), encoding="utf-8")
    return DirectoryArtifact(folder, {"name": "own", "dimension": DIMENSION, "how": "drawn", "passages": {"own": len(rows)}})


def race(kind: str, count: int, changed: float) -> dict[str, float]:
    """One kind: built of ``count`` vectors, brought up to date, and built anew of the same."""
    search, replaced = VectorSearchSettings(**CHOSEN[kind]), max(1, round(count * changed))
    pool = drawn(count + replaced + QUERIES)
    queries, first = pool[-QUERIES:], np.arange(count)
    places = np.random.default_rng(1).choice(count, replaced, replace=False)
    later = first.copy()
    later[places] = count + np.arange(replaced)
    change = {"gone": {str(row) for row in places}, "new": {str(row) for row in later[places]}}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        before, after = written(work / "before", first, pool), written(work / "after", later, pool)
        least = kth_best(pool[later], queries, 10)

        def made(name: str, vectors: DirectoryArtifact, earlier: Path | None, gone: set[str], new: set[str]) -> dict[str, float]:
            begun = time.process_time()
            build_vectors(vectors, search, work / name / "dense", Change(earlier, count, gone, new), codes=None, progress=lambda line: None)
            spent = time.process_time() - begun
            found = rows_found(DenseIndex(work / name / "dense", "own").search(queries, 10), [str(row) for row in later], 10)
            return {"seconds": spent, "recall": float(recalls(found, pool[later], queries, least).mean())}

        made("first", before, None, set(), set())
        updated = made("updated", after, work / "first", **change)
        anew = made("anew", after, None, set(), set())
    return {
        "seconds": updated["seconds"], "seconds_anew": anew["seconds"], "ratio": updated["seconds"] / anew["seconds"],
        "recall": updated["recall"], "recall_anew": anew["recall"], "recall_lost": anew["recall"] - updated["recall"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--kinds", default=",".join(CHOSEN))
    asked = parser.parse_args()
    use_threads(1)
    found: dict[str, Any] = {"hardware": describe_hardware("cpu"), "threads": 1, "vectors": asked.vectors, "changed": asked.changed}
    for kind in asked.kinds.split(","):
        found[kind] = race(kind, asked.vectors, asked.changed)
        print(kind, found[kind], file=sys.stderr)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
