"""What of an index is made on a Ray cluster: the codes of IVF-PQ, in parts. The rest stays in one process, for these reasons.

An exact index is its vectors one after another: reading them is all there is to do. A graph (HNSW) cannot be made in parts that merge to the
same graph. Cells and codebooks are trained once, on vectors that are all in one place. BM25 could be: Lucene adds one index to another, and the
merged one has the collection's own statistics. But it takes in 9,000 passages a core-second, almost 400 times what an encoder does (docs/scale.md),
and merging writes every byte a second time; so it is one process here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from curriculum.cluster.session import ray_session
from curriculum.hardware import ComputeSettings
from curriculum.vector_search.kinds import Codes
from curriculum.vector_search.parts import add_by_parts, filled


def codes_by(compute: ComputeSettings, progress: Callable[[str], None]) -> Codes | None:
    """What fills a trained index by the profile's engine; None: faiss itself, in this process. A cluster is asked for when it is called.

    What is called raises UserError: the engine is ray and there is none, or no cluster answers.
    """
    if compute.engine == "local":
        return None

    def add(index: Any, vectors: np.ndarray) -> None:
        with ray_session(compute.ray_address, progress) as ray:
            add_by_parts(index, vectors, partial(_on_cluster, ray, progress))

    return add


def _on_cluster(ray: Any, progress: Callable[[str], None], trained: np.ndarray, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The parts in their order. A part whose machine is lost is made again by Ray, from what the driver holds."""
    task, trained_once, flying = ray.remote(num_cpus=1, max_retries=-1)(filled), ray.put(trained), deque[Any]()
    most, done = 2 * max(1, int(ray.cluster_resources().get("CPU", 1))), 0
    waiting = iter(parts)
    while True:
        while len(flying) < most and (part := next(waiting, None)) is not None:
            flying.append(task.remote(trained_once, part))
        if not flying:
            return
        yield ray.get(flying.popleft())
        done += 1
        progress(f"codes of {done} parts of the vectors")
