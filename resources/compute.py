"""Compute: the device, its precision, threads, memory cap, meter and lease."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from curriculum.hardware import ComputeSettings, Cost, describe_hardware, release_memory, resolve_device, use_threads
from curriculum.limits import device_lease, memory_cap


@dataclass(frozen=True)
class Session:
    """A block that holds its device: what it costs so far, and the check of its memory that lines of progress make."""

    cost: Cost
    check: Callable[[], None]


class Compute(dg.ConfigurableResource):
    """One place that decides where tensors live, how many threads run, and what a step may cost."""

    device: str = "cpu"
    precision: str = "float32"
    threads: int = 0
    memory_cap_gb: float = 6.0
    engine: str = "local"
    ray_address: str = ""
    lease_folder: str

    @classmethod
    def of(cls, settings: ComputeSettings, lease_folder: Path) -> "Compute":
        return cls(**settings.model_dump(), lease_folder=str(lease_folder))

    @contextlib.contextmanager
    def session(self, *, holder: str = "", progress: Callable[[str], None] = lambda line: None) -> Iterator[Session]:
        """Hold the device (``holder`` is the run that does), bound its memory, set threads, and meter the block.

        Raises:
            MemoryLimitError: the block's resident memory was above ``memory_cap_gb`` (on a CPU; on a GPU torch.OutOfMemoryError).
        """
        device = resolve_device(self.device)
        use_threads(self.threads)
        lease = device_lease(device, Path(self.lease_folder), holder=holder, progress=progress)
        release_memory()  # a run is one process: what earlier assets left behind would count against this one's cap
        with lease, memory_cap(self.memory_cap_gb, device) as check:
            cost = Cost()
            yield Session(cost, check)
            cost.stop()

    def hardware(self) -> str:
        return describe_hardware(resolve_device(self.device))
