"""What a step may take: a device that it holds alone, and memory that stops it before the machine is full."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any

from curriculum.errors import MemoryLimitError
from curriculum.hardware import peak_resident_bytes, reset_peak, resident_bytes

GIB = 2**30
_SIGNAL = signal.SIGUSR1  # the Java machine in this process takes SIGUSR2 and SIGQUIT, the orchestrator SIGINT and SIGTERM
_POLL_SECONDS = 0.2


def lease_name(device: str) -> str:
    """What a device is called among processes: ``cuda`` and ``cuda:0`` are one, and a visible GPU is named by its UUID.

    The UUID, because under CUDA_VISIBLE_DEVICES two processes mean different GPUs by ``cuda:0``, or one GPU by two numbers.
    """
    if not device.startswith("cuda"):
        return device
    index = int(device.partition(":")[2] or 0)
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return f"cuda-{sys.modules['torch'].cuda.get_device_properties(index).uuid}"
    return f"cuda:{index}"


@contextlib.contextmanager
def device_lease(
    device: str, folder: Path, *, holder: str = "", progress: Callable[[str], None] = lambda line: None, every: float = 30.0
) -> Iterator[None]:
    """Hold ``device`` alone among the processes of this machine: a file lock, which the kernel drops when the holder dies.

    A pool in the orchestrator only schedules; this is what excludes. A CPU is shared, so its lease is free. The lock file says
    which process and which run (``holder``) has it; who waits says so by ``progress``, at once and ``every`` so many seconds.
    """
    if device == "cpu":
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    name = lease_name(device)
    with (folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}.lock").open("a+", encoding="utf-8") as handle:
        _lock(handle, name, progress, every)
        _write(handle, {"pid": os.getpid(), "run": holder, "since": datetime.now(UTC).isoformat(timespec="seconds")})
        try:
            yield
        finally:
            _write(handle, {})


def _lock(handle: IO[str], name: str, progress: Callable[[str], None], every: float) -> None:
    start = time.monotonic()
    told = -every
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - start
            if waited - told >= every:
                told = waited
                progress(f"waiting for {name} since {waited:.0f} s, held by {_holder(handle)}")
            time.sleep(_POLL_SECONDS)
        else:
            return


def _holder(handle: IO[str]) -> str:
    handle.seek(0)
    try:
        said = json.loads(handle.read() or "{}")
    except ValueError:
        said = {}  # read while its holder was writing it
    return f"process {said['pid']}, run {said['run'] or '-'}, since {said['since']}" if said else "another process"


def _write(handle: IO[str], said: dict[str, Any]) -> None:
    handle.seek(0)
    handle.truncate()
    json.dump(said, handle)
    handle.flush()


class MemoryWatch:
    """Samples the resident memory of this process, and stops the block it guards when that is above ``cap`` bytes.

    In the main thread it stops by a signal whose handler raises :class:`MemoryLimitError` there, between two bytecodes, so that
    the block unwinds as from any exception; elsewhere, and where a library swallowed that, :meth:`check` raises it: at the next
    line of progress, and at the end of the block. One call into native code is not interrupted, only what follows it.

    Not RLIMIT_AS: that bounds addresses, of which torch reserves many times what it uses (mapped weights, the arenas of its
    threads, CUDA's ranges), and a refused mapping ends a library in a crash. Not RLIMIT_RSS: Linux ignores it.
    """

    def __init__(self, cap: int, *, interval: float = 0.05) -> None:
        self.cap, self.peak = cap, 0
        self._interval = interval
        self._done = threading.Event()
        self._metered = self._told = False

    def check(self) -> None:
        """Raise :class:`MemoryLimitError` where the memory has been above the cap, were it between two samples."""
        if self._metered:
            self.peak = max(self.peak, peak_resident_bytes())
        if self.peak > self.cap:
            raise MemoryLimitError(
                f"memory {self.peak / GIB:.2f} GiB is above compute.memory_cap_gb={self.cap / GIB:g}; lower the batch or the lengths of "
                "this asset's settings, or raise the cap"
            )

    @contextlib.contextmanager
    def watching(self) -> Iterator[MemoryWatch]:
        """Watch the block.

        Raises:
            MemoryLimitError: the memory was above the cap; at the end of the block where something inside swallowed the first error.
        """
        by_signal = threading.current_thread() is threading.main_thread()
        before = signal.signal(_SIGNAL, self._stop) if by_signal else None
        self._metered = reset_peak()  # where the kernel cannot, its peak is the whole process's, and only samples count
        thread = threading.Thread(target=self._sample, args=(by_signal,), name="memory watch", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()  # from here on a signal raises nothing
            thread.join()
            if by_signal:
                signal.signal(_SIGNAL, before if before is not None else signal.SIG_DFL)
        self.peak = max(self.peak, resident_bytes())
        self.check()

    def _sample(self, by_signal: bool) -> None:
        while not self._done.wait(self._interval):
            self.peak = max(self.peak, resident_bytes())
            if self.peak > self.cap:
                if not by_signal or self._told:
                    return
                signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)

    def _stop(self, _signal: int, frame: FrameType | None) -> None:
        if self._done.is_set() or self._told or _importing(frame):
            return
        self._told = True  # once: what is unwound is not interrupted
        self.check()


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: stopped half-way it would stay broken for the rest of the process. It is stopped after."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def memory_cap(gib: float, device: str) -> Iterator[Callable[[], None]]:
    """Bound what the block may take: resident memory on a CPU (:class:`MemoryWatch`), torch's share of the memory on a GPU.

    Gives the check that lines of progress make. On a GPU the allocator itself refuses, with ``torch.OutOfMemoryError``.
    """
    if device == "cpu":
        with MemoryWatch(round(gib * GIB)).watching() as watch:
            yield watch.check
        return
    import torch

    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / whole), device)
    try:
        yield lambda: None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out: the cap, Python's allocator, torch's on a GPU, or torch's on a CPU."""
    if isinstance(error, MemoryLimitError | MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
