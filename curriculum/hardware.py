"""The machine: what it is, how many threads to use, and what a computation costs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import re
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from curriculum.errors import UserError

_STATUS, _STATM = Path("/proc/self/status"), Path("/proc/self/statm")


class ComputeSettings(BaseModel):
    """How to compute. ``memory_cap_gb`` (GiB) bounds resident memory on a CPU and allocated memory on a GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?|auto)$")
    precision: str = Field("float32", pattern="^(float32|bfloat16|float16)$")
    threads: int = Field(0, ge=0, description="0: OMP_NUM_THREADS where that is set, else one a core")
    memory_cap_gb: float = Field(6.0, gt=0)
    engine: str = Field("local", pattern="^(local|ray)$", description="ray: passages are encoded, and codes made, on a Ray cluster")
    ray_address: str = Field("", description="HOST:PORT of the cluster's head; empty: RAY_ADDRESS, else a cluster of this machine's own")


class Cost:
    """What a computation takes: seconds, and the peak resident memory of this process in bytes. Runs until :meth:`stop`."""

    def __init__(self) -> None:
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.wall_seconds = self.cpu_seconds = 0.0
        self.peak_memory_bytes = 0
        reset_peak()
        self._wall, self._times = time.perf_counter(), os.times()

    def stop(self) -> Cost:
        """Read the meters; children's CPU seconds are included. Calling it again reads them again."""
        now = os.times()
        self.wall_seconds = time.perf_counter() - self._wall
        self.cpu_seconds = sum(now[:4]) - sum(self._times[:4])
        self.peak_memory_bytes = peak_resident_bytes()
        return self


def peak_resident_bytes() -> int:
    """Peak resident memory of this process since :func:`reset_peak` (Linux), or since it started (elsewhere)."""
    if _STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        if found:
            return int(found.group(1)) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Resident memory of this process now (Linux), or its peak since it started (elsewhere)."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_resident_bytes()


def release_memory() -> None:
    """Give back what dead objects held: collect cycles, and have glibc return its free pages. What lives is not touched."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset_peak() -> bool:
    """Make the peak meter start again from the present; False where the kernel cannot (the peak is then the process's)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def describe_hardware(device: str) -> str:
    """Processor model and core count, and the GPU's name when ``device`` is one."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = found.group(1) if found else model
    text = f"{model}, {os.cpu_count()} cores"
    if device.startswith("cuda"):
        import torch

        text += f", {torch.cuda.get_device_name(device)}"
    return text


def resolve_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is one, else ``cpu``; a named device that is absent is a UserError."""
    if device == "cpu":
        return device
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if not available:
        raise UserError(f"compute.device is '{device}' but no CUDA device is visible; set compute.device: cpu (or auto)")
    return device


def use_threads(threads: int) -> int:
    """Set torch's intra-op threads; returns the number in use. 0: OMP_NUM_THREADS, which whoever shares the machine sets, else one a core."""
    import torch

    named = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    wanted = threads or (int(named) if named.isdigit() else 0) or os.cpu_count() or 1
    torch.set_num_threads(wanted)
    return wanted


def matmul_peak_flops(seconds: float = 0.5, size: int = 1024, device: str = "cpu", precision: str = "float32") -> float:
    """Measured matmul throughput of this process in FLOP/s: the roof other figures are shares of."""
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, precision)) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: torch.mm(a, b), seconds, device)


def memory_bandwidth(seconds: float = 0.5, megabytes: int = 256, device: str = "cpu") -> float:
    """Measured bytes/s of a copy between two arrays far larger than any cache, reads and writes counted (McCalpin's STREAM)."""
    import torch

    source = torch.ones(megabytes * 2**20 // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source), seconds, device)


def timed(call: Callable[[], object], device: str = "cpu") -> float:
    """Seconds of ``call``, to the end of what it started on a GPU."""
    import torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    begun = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - begun


def _fastest(call: Callable[[], object], seconds: float, device: str) -> float:
    timed(call, device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, timed(call, device))
    return best
