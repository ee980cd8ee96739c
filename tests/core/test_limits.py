"""A device has one holder at a time, whoever asks and however a holder ends; memory above the cap stops a block."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from curriculum.errors import MemoryLimitError
from curriculum.hardware import resident_bytes, resolve_device
from curriculum.limits import GIB, MemoryWatch, device_lease, lease_name, out_of_memory
from resources.compute import Compute

ROOT = Path(__file__).parents[2]
RUN = """
import json, sys, time
from pathlib import Path
import dagster as dg
from curriculum.limits import device_lease

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

@dg.asset(pool="gpu")
def holds_a_device(context: dg.AssetExecutionContext) -> None:
    tell = lambda line: print(line, flush=True)
    with device_lease("cuda:0", folder, holder=context.run_id, progress=tell, every=0.5):
        start = time.monotonic()
        print("held", context.run_id, flush=True)
        time.sleep(seconds)
        print(json.dumps([start, time.monotonic()]), flush=True)

quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
assert dg.materialize([holds_a_device], run_config=quiet).success
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def next_line(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline().strip()


def test_runs_never_share_a_device_and_a_killed_holder_frees_it(tmp_path: Path) -> None:
    runs = [start(tmp_path, 60)]
    try:
        run_id = next_line(runs[0]).removeprefix("held ")
        runs += [start(tmp_path, 0.5), start(tmp_path, 0.5)]
        for waiter in runs[1:] * 2:  # said at once, and again while it lasts
            line = next_line(waiter)
            assert line.startswith("waiting for cuda:0") and f"held by process {runs[0].pid}, run {run_id}, since 20" in line
        runs[0].send_signal(signal.SIGKILL)
        said = [waiter.communicate(timeout=60)[0].splitlines() for waiter in runs[1:]]
        assert [waiter.returncode for waiter in runs[1:]] == [0, 0]
        first, second = sorted(json.loads(lines[-1]) for lines in said)
        assert first[1] <= second[0]
    finally:
        for run in runs:
            run.kill()
            run.wait()


def test_one_device_has_one_lease_under_both_of_its_names(tmp_path: Path) -> None:
    assert lease_name("cuda") == lease_name("cuda:0") and lease_name("bench:0") == "bench:0"
    told: list[str] = []
    with device_lease("bench:0", tmp_path, holder="first"):
        other = threading.Thread(target=lambda: device_lease("bench:0", tmp_path, progress=told.append).__enter__(), daemon=True)
        other.start()
        time.sleep(0.4)
        assert other.is_alive() and "run first" in told[0]
    with device_lease("cpu", tmp_path / "never-made"):
        assert not (tmp_path / "never-made").exists()


def allocate(mebibytes: int) -> bytearray:
    held = bytearray(mebibytes * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    return held


def test_memory_above_the_cap_stops_the_block_while_it_runs(tmp_path: Path) -> None:
    resolve_device("auto")  # torch, and its memory, are here before the block
    cap = resident_bytes() / GIB + 0.15
    compute = Compute(memory_cap_gb=cap, lease_folder=str(tmp_path))
    held, before = [], signal.getsignal(signal.SIGUSR1)
    with pytest.raises(MemoryLimitError, match=r"memory \d+\.\d\d GiB is above compute\.memory_cap_gb=.*; lower the batch"), compute.session():
        for _ in range(200):  # 4 GiB if nothing stops it
            held.append(allocate(20))
            time.sleep(0.02)
    assert 5 <= len(held) < 60 and signal.getsignal(signal.SIGUSR1) is before
    with pytest.raises(MemoryLimitError), compute.session():  # still held
        time.sleep(5)
    held.clear()
    with compute.session() as session:
        session.check()


def test_an_error_that_a_library_swallows_is_raised_again(tmp_path: Path) -> None:
    watch, reached, held = MemoryWatch(resident_bytes() + 50 * 2**20), [], None
    with pytest.raises(MemoryLimitError, match="above compute"), watch.watching():
        try:
            held = allocate(120)  # it may be stopped in here already
            time.sleep(1)
        except Exception:
            reached.append("swallowed")
        del held
        with pytest.raises(MemoryLimitError):
            watch.check()  # as a line of progress does
        reached.append("the end")
    assert reached == ["swallowed", "the end"]


IMPORT = """
import sys, time
from curriculum.errors import MemoryLimitError
from curriculum.hardware import resident_bytes
from curriculum.limits import MemoryWatch
try:
    with MemoryWatch(resident_bytes() + 2**20).watching():
        import takes_its_time
        time.sleep(5)
except MemoryLimitError:
    import takes_its_time
    print(takes_its_time.finished)
"""


def test_a_module_is_never_left_half_imported(tmp_path: Path) -> None:
    (tmp_path / "takes_its_time.py").write_text("import time\nheld = bytearray(b'x') * (50 * 2**20)\ntime.sleep(0.5)\nfinished = True\n")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True"


def test_outside_the_main_thread_the_check_stops_the_block() -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            with MemoryWatch(resident_bytes() + 50 * 2**20).watching() as watch:
                held = allocate(120)
                while held:
                    time.sleep(0.01)
                    watch.check()
        except MemoryLimitError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=10)
    assert len(found) == 1


def test_what_counts_as_out_of_memory() -> None:
    import torch

    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(refused.value)
    assert not out_of_memory(RuntimeError("size mismatch")) and not out_of_memory(ValueError("memory"))
