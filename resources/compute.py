"""Compute: the device, its precision, threads, memory cap, meter and lease."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from curriculum.errors import UserError
from curriculum.hardware import ComputeSettings, Cost, describe_hardware, device_lease, resolve_device, use_threads


class Compute(dg.ConfigurableResource):
    """One place that decides where tensors live, how many threads run, and what a step may cost."""

    device: str = "cpu"
    precision: str = "float32"
    threads: int = 0
    memory_cap_gb: float = 6.0
    engine: str = "local"
    lease_folder: str

    @classmethod
    def of(cls, settings: ComputeSettings, lease_folder: Path) -> "Compute":
        return cls(**settings.model_dump(), lease_folder=str(lease_folder))

    @contextlib.contextmanager
    def session(self) -> Iterator[Cost]:
        """Hold the device, set threads, and meter the block.

        Raises:
            UserError: the block's peak resident memory was above ``memory_cap_gb``.
        """
        device = resolve_device(self.device)
        with device_lease(device, Path(self.lease_folder)):
            use_threads(self.threads)
            cost = Cost()
            yield cost
        peak = cost.stop().peak_memory_bytes / 2**30
        if device == "cpu" and peak > self.memory_cap_gb:
            raise UserError(
                f"peak memory {peak:.1f} GiB is above compute.memory_cap_gb={self.memory_cap_gb}; "
                "lower the batch or the lengths of this asset's settings, or raise the cap"
            )

    def hardware(self) -> str:
        return describe_hardware(resolve_device(self.device))
