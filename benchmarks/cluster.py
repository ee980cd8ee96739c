"""Encoding by a Ray cluster of two nodes on this machine, a CPU each, against two plain processes and one. Needs ray: `make ray`.

python -m benchmarks.cluster --corpus DIR [--documents 3000] [--shard 64]

``DIR`` is a folder in BEIR layout. Each process has one thread. Two plain processes are what two nodes could do at best; in the last round a
node is killed half-way, and the other one finishes alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search import read_corpus
from curriculum.hardware import ComputeSettings, describe_hardware, use_threads
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.sources import model_folder

SETTINGS = RetrievalSettings()
NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "include_dashboard": False}
WARM_UP = 8  # shards
_encoder: Any = None  # of a plain process


def start(folder: str) -> None:
    """Load the encoder of a plain process."""
    global _encoder
    from curriculum.retrieval.dense import Encoder

    use_threads(1)
    _encoder = Encoder(Path(folder), SETTINGS)


def encode(texts: list[str]) -> np.ndarray:
    """What a plain process does with a shard."""
    return _encoder.passages(texts)


def spent(results: Iterable[np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds that it takes to get all of ``results``, and these one after another."""
    begun = time.perf_counter()
    vectors = list(results)
    return time.perf_counter() - begun, np.concatenate(vectors)


def in_order(results: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    """What comes numbered and in any order, in the order of the numbers."""
    yield from (vectors for _, vectors in sorted(results, key=lambda pair: pair[0]))


def race(model: Path, shards: list[list[str]]) -> dict[str, float]:
    """Every side after the other: each is warm before its clock starts."""
    start(str(model))
    spent(map(encode, shards[:WARM_UP]))
    one_s, expected = spent(map(encode, shards))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), start, (str(model),)) as pool:
        spent(pool.map(encode, shards[:WARM_UP]))
        two_s, by_two = spent(pool.map(encode, shards))
    found = on_cluster(model, shards)
    vectors = [by_two, found.pop("vectors"), found.pop("killed_vectors")]
    return {
        "one_process_s": one_s, "two_processes_s": two_s, **found, "ratio_to_two_processes": found["two_nodes_s"] / two_s,
        "speed_over_one_process": one_s / found["two_nodes_s"], "killed_over_one_process": found["killed_s"] / one_s,
        "largest_difference": max(float(np.abs(each - expected).max()) for each in vectors),
    }  # fmt: skip


def on_cluster(model: Path, shards: list[list[str]]) -> dict[str, Any]:
    """Seconds until both workers are ready, of encoding, and of encoding where a node is killed when half of the shards are done."""
    from curriculum.cluster.encoding import encoder_on
    from curriculum.cluster.session import load_ray, workers_path

    load_ray()
    from ray.cluster_utils import Cluster

    with workers_path():
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        node, said = cluster.add_node(**NODE), list[str]()
        try:
            compute = ComputeSettings(threads=1, engine="ray", ray_address=cluster.address)
            begun = time.perf_counter()
            with encoder_on(model, SETTINGS, "cpu", compute, said.append) as workers:
                while sum("is ready" in line for line in said) < 2:
                    workers.passages(shards[0])
                ready_s = time.perf_counter() - begun
                spent(in_order(workers.map(shards[:WARM_UP])))
                whole_s, vectors = spent(in_order(workers.map(shards)))
                killed_s, killed = spent(in_order(_watched(workers.map(shards), len(shards) // 2, lambda: cluster.remove_node(node, False))))
        finally:
            cluster.shutdown()
    return {"ready_s": ready_s, "two_nodes_s": whole_s, "killed_s": killed_s, "vectors": vectors, "killed_vectors": killed}


def _watched(results: Iterable[tuple[int, np.ndarray]], at: int, do: Callable[[], Any]) -> Iterator[tuple[int, np.ndarray]]:
    for number, result in enumerate(results):
        if number == at:
            do()
        yield result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a folder in BEIR layout")
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--shard", type=int, default=64, help="passages that are encoded together")
    asked = parser.parse_args()
    from curriculum.retrieval.passages import contents

    texts = contents(read_corpus(asked.corpus, asked.documents, 0)[0])
    shards = [texts[at : at + asked.shard] for at in range(0, len(texts), asked.shard)]
    with tempfile.TemporaryDirectory() as folder:
        found = race(model_folder(SETTINGS.encoder, Path(folder)), shards)
    print(json.dumps({"hardware": describe_hardware("cpu"), "threads": 1, "passages": len(texts), **found}, indent=1))


if __name__ == "__main__":
    main()
