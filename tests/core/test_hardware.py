"""The meter and the device setting."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from curriculum import hardware
from curriculum.errors import UserError
from curriculum.hardware import matmul_peak_flops, memory_bandwidth, resolve_device, timed, use_threads

ROOT = Path(__file__).parents[2]


METERED = """
from curriculum.hardware import Cost
big = bytearray(300 * 2**20)
big[::4096] = b"x" * len(big[::4096])
del big
cost = Cost()
held = bytearray(100 * 2**20)
held[::4096] = b"x" * len(held[::4096])
first = cost.stop().peak_memory_bytes
del held
print(first, Cost().stop().peak_memory_bytes)
"""


def test_the_meter_sees_the_peak_of_its_own_block_only() -> None:
    # in a process of its own: the threads of a long test session allocate whenever they like
    said = subprocess.run([sys.executable, "-c", METERED], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    first, second = map(int, said.split())
    assert 100 * 2**20 < first < 250 * 2**20
    assert second < first - 90 * 2**20


LEFT = """
from curriculum.hardware import release_memory, resident_bytes
many = [bytearray(1000) for _ in range(200_000)]
many.append(many)  # a cycle: nothing is freed when the name goes
last = bytearray(1000)  # keeps glibc from giving back the end of its heap by itself
held = resident_bytes()
del many
before = resident_bytes()
release_memory()
print(held, before, resident_bytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the free pages of another allocator are its own affair")
def test_what_dead_objects_held_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", LEFT], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    held, before, after = map(int, said.split())
    assert before > held - 20 * 2**20 and after < before - 150 * 2**20


def test_a_device_that_is_not_there_is_named() -> None:
    import torch

    if torch.cuda.is_available():
        assert resolve_device("auto") == "cuda"
        return
    assert resolve_device("auto") == "cpu"
    with pytest.raises(UserError, match=r"compute\.device is 'cuda' but no CUDA device is visible; set compute\.device: cpu"):
        resolve_device("cuda")


def test_the_roofs_are_counted_in_what_was_multiplied_and_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(lambda: time.sleep(0.02)) >= 0.02
    assert matmul_peak_flops(seconds=0.05, size=64) > 0 and memory_bandwidth(seconds=0.05, megabytes=1) > 0
    monkeypatch.setattr(hardware, "timed", lambda call, device: 0.5 if call() is not None else 0.0)  # a clock that no other load moves
    assert matmul_peak_flops(seconds=0.01, size=64) == 2 * 64**3 / 0.5
    assert memory_bandwidth(seconds=0.01, megabytes=3) == 2 * 3 * 2**20 / 0.5


@pytest.mark.parametrize(("asked", "named", "used"), [(0, "1", 1), (0, "3,2", 3), (2, "1", 2), (0, "", os.cpu_count()), (0, "many", os.cpu_count())])
def test_threads_are_those_asked_for_else_those_of_whoever_shares_the_machine(
    asked: int, named: str, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", named)
    try:
        assert use_threads(asked) == torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)
