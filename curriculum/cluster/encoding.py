"""Passages encoded by the workers of a Ray cluster, each of which loads the encoder once.

A finished shard is kept by the driver just as a run without a cluster keeps it, and either takes up what the other has finished.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from curriculum.cluster.session import ray_session
from curriculum.cluster.workers import Workers
from curriculum.hardware import ComputeSettings, use_threads
from curriculum.limits import memory_cap
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.settings import RetrievalSettings


@contextlib.contextmanager
def encoder_on(
    model: Path, settings: RetrievalSettings, device: str, compute: ComputeSettings, progress: Callable[[str], None]
) -> Iterator[Any]:
    """The encoder by the profile's engine: in this process, or on the workers of a Ray cluster, which is left with the block.

    A worker takes ``compute.threads`` CPUs (one where that is 0), a GPU where the device is one, and ``compute.memory_cap_gb``.

    Raises:
        UserError: the engine is ray and there is none, or no cluster answers.
    """
    if compute.engine == "local":
        yield Encoder(model, settings, device)
        return
    on_gpu = device.startswith("cuda")
    needs, told = {"CPU": compute.threads or 1, **({"GPU": 1} if on_gpu else {})}, (settings.model_dump(), compute.model_dump())
    size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
    with ray_session(compute.ray_address, progress, model_bytes=size) as ray:
        workers = Workers(ray, EncodingWorker, lambda: (packed(model), *told, "cuda" if on_gpu else device), needs, progress)
        try:
            yield workers
        finally:
            workers.close()


class EncodingWorker:
    """One process of the cluster, with the encoder from the files of its model."""

    def __init__(self, files: dict[str, bytes], settings: dict[str, Any], compute: dict[str, Any], device: str) -> None:
        limits = ComputeSettings(**compute)
        use_threads(limits.threads or 1)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                file = Path(folder, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self._encoder = Encoder(Path(folder), RetrievalSettings(**settings), device)
        self._cap, self._device = limits.memory_cap_gb, device

    def dimension(self) -> int:
        """Length of a vector; the answer says that the worker is ready."""
        return self._encoder.dimension

    def passages(self, texts: list[str]) -> np.ndarray:
        """float32 [texts, dimension].

        Raises:
            MemoryLimitError: it took more than ``compute.memory_cap_gb``.
        """
        with memory_cap(self._cap, self._device):
            return self._encoder.passages(texts)


def packed(folder: Path) -> dict[str, bytes]:
    """The files of a model by their names in its folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
