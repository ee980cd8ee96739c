"""The golden losses hold, and a changed optimizer, start, mask or stored value is seen."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from curriculum.transformer import training
from tests.transformer import golden

ROOT = Path(__file__).parents[2]
STORED = json.loads(golden.STORED.read_text())


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The documented command in a process of its own, on one thread: the last bits of a sum depend on both."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "tests.transformer.golden", *arguments], cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


def test_100_steps_of_every_family_give_the_stored_losses() -> None:
    before, done = golden.STORED.read_bytes(), command("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["curves"].keys() == golden.families().keys() and all(len(curve) == golden.STEPS for curve in found["curves"].values())
    changes = golden.differences(STORED, found["curves"])
    assert not golden.moved(STORED, found["curves"], found["platform"]), f"{changes}: see tests/transformer/golden.py if this was meant"
    assert golden.STORED.read_bytes() == before
    assert all(curve[-1] < curve[0] - 0.5 for curve in found["curves"].values())


def betas(patch: pytest.MonkeyPatch) -> None:
    real = torch.optim.AdamW
    patch.setattr(training.torch.optim, "AdamW", lambda groups, **given: real(groups, **{**given, "betas": (0.9, 0.96)}))


def start(patch: pytest.MonkeyPatch) -> None:
    real = torch.nn.init.normal_
    patch.setattr(torch.nn.init, "normal_", lambda weight, mean=0.0, std=1.0: real(weight, mean, 1.05 * std))


def unclipped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.nn.utils, "clip_grad_norm_", lambda weights, limit: torch.tensor(0.0))


@pytest.mark.parametrize("change", [betas, start, unclipped])
def test_one_thing_changed_is_seen_even_with_the_wide_tolerance(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = dict(list(golden.families().items())[:1])
    monkeypatch.setattr(golden, "families", lambda: one)
    stored = {"platform": {}, "curves": {name: STORED["curves"][name] for name in one}}
    change(monkeypatch)
    assert golden.moved(stored, golden.curves(), {"torch": "another"}).keys() == one.keys()


def test_the_tolerance_is_narrow_on_the_same_platform_alone() -> None:
    here = STORED["platform"]
    shifted = {name: [*curve[:-1], curve[-1] + 1e-5] for name, curve in STORED["curves"].items()}
    assert golden.tolerance(STORED, here) == 1e-6 and golden.moved(STORED, shifted, here).keys() == shifted.keys()
    for key in here:
        assert golden.tolerance(STORED, {**here, key: "another"}) == 1e-3
        assert not golden.moved(STORED, shifted, {**here, key: "another"})
    assert golden.identity().keys() == here.keys()


@pytest.mark.parametrize("broken", [[], [1.0], [math.nan] * golden.STEPS])
def test_a_missing_short_or_undefined_curve_is_no_match(broken: list[float]) -> None:
    found = {**STORED["curves"], "decoder": broken}
    assert golden.moved(STORED, found, STORED["platform"]) == {"decoder": math.inf}
    assert golden.moved(STORED, {**STORED["curves"], "new": [1.0]}, STORED["platform"]) == {"new": math.inf}
