"""The bubble from time stamps, the ledgers' formulas, the settings' refusals, and what a launcher's output says of a failure."""

from __future__ import annotations

import base64
import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from curriculum.errors import UserError
from curriculum.parallel.counting import expected_memory, expected_traffic
from curriculum.parallel.job import Job, load_job
from curriculum.parallel.launch import command, ended_by, failure_in
from curriculum.parallel.pipeline import Event, bubble_formula, measured_bubble, replayed_bubble
from curriculum.parallel.runs import curve_difference
from curriculum.parallel.settings import LAUNCHERS, Launcher, ParallelSettings
from curriculum.parallel.train import main
from tests.parallel.tiny import TINY, passes


def gpipe(stages: int, micro: int) -> list[list[Event]]:
    """All forward, then all backward, at 1 and 2 seconds a pass."""
    def at(stage: int, kind: str, number: int) -> float:
        return stage + number if kind == "F" else micro + stages - 1 + 2 * (stages - 1 - stage + number)

    return [
        [(kind, n, at(s, kind, n), at(s, kind, n) + (1 if kind == "F" else 2)) for kind in "FB" for n in range(micro)] for s in range(stages)
    ]


@pytest.mark.parametrize(("stages", "micro"), [(2, 1), (2, 8), (4, 8), (3, 5)])
def test_the_bubble_of_an_even_schedule_is_the_formulas(stages: int, micro: int) -> None:
    events = gpipe(stages, micro)
    assert measured_bubble(events) == pytest.approx(bubble_formula(stages, micro)) == pytest.approx(replayed_bubble(events))


def test_a_stage_that_runs_one_micro_batch_at_a_time_is_red() -> None:
    stages = gpipe(2, 4)
    one_by_one = [sorted(stage, key=lambda event: (event[1], event[0] == "B")) for stage in stages]
    error = abs(replayed_bubble(one_by_one) - bubble_formula(2, 4))
    assert not passes("parallelism_study", "bubble_order_error", error)
    with pytest.raises(ValueError, match="no schedule"):
        replayed_bubble([stages[0][::-1], stages[1]])


def test_the_formulas_of_the_notes() -> None:
    assert expected_traffic("ddp", 440, 8) == 770
    assert expected_traffic("zero3", 16.06, 8) == pytest.approx(42.2, abs=0.1)
    assert expected_memory("zero2", 4.0, 2) == {"parameters": 4, "gradients": 2, "optimizer": 4}
    assert sum(expected_memory("zero3", 4.0, 8).values()) == 16 / 8


def test_curves_of_another_length_or_without_a_number_are_not_equal() -> None:
    assert curve_difference([2.0, 1.0], [2.0, 1.5]) == 0.5
    assert not any(passes("parallelism_study", "loss_difference__ddp", curve_difference([2.0, 1.0], other)) for other in ([2.0], [2.0, float("nan")]))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"kv_heads": 1}, "kv_heads 1 must divide by ranks 2"), ({"stages": (4, 3)}, "add up to layers 6"), ({"micro_batches": (1, 3)}, r"\[3\] must divide"), ({"parts": 5}, "parts 5")],
)
def test_settings_that_do_not_divide_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ParallelSettings(**change)


def test_a_settings_file_that_is_no_run_names_the_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(strategy="zero1", settings=TINY, vocab_size=300, seed=0, blocks="b", out=str(tmp_path))
    path = tmp_path / "settings.json"
    path.write_text(job.model_dump_json().replace("zero1", "zero9"))
    assert main([str(path)]) == 2 and "strategy" in capsys.readouterr().err
    path.write_text(job.model_copy(update={"checkpoints": "c"}).model_dump_json())
    with pytest.raises(UserError, match="zero1.*no checkpoints"):
        load_job(path)
    path.write_text(job.model_dump_json())
    assert main([str(path)]) == 2 and "meeting" in capsys.readouterr().err
    assert main([]) == 2 and main([str(tmp_path / "none.json")]) == 2


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_starts_the_one_entry_point(launcher: Launcher) -> None:
    parts = command(launcher, 2, Path("/run/settings.json"))
    assert parts[:2] == [sys.executable, "-m"] and parts[-2:] == ["curriculum.parallel.train", "/run/settings.json"]
    told = dict(pairwise(parts))
    ranks = {"torchrun": told.get("--nproc-per-node"), "accelerate": told.get("--num_processes"), "plain": "2"}
    if launcher == "deepspeed":
        ranks[launcher] = str(len(json.loads(base64.urlsafe_b64decode(told["--world_info"]))["localhost"]))
    assert ranks[launcher] == "2"


TORCHRUN = """[rank0]: RuntimeError: Connection closed by peer
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 41)
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 42)
"""


def test_the_rank_that_was_killed_is_named_rather_than_the_one_that_lost_it() -> None:
    assert failure_in(TORCHRUN, 1) == (1, "was ended by SIGKILL")
    assert failure_in(TORCHRUN.replace("-9", "2"), 1) == (1, "failed: [rank0]: RuntimeError: Connection closed by peer")
    assert failure_in("", -15) == (None, "was ended by SIGTERM") and ended_by(3) == "ended with exit code 3"
