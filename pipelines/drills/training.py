"""Faults of a training: its process is killed, or one of its ranks."""

from __future__ import annotations

import signal
import time

import psutil

from curriculum.storage import Manifest
from pipelines.drills.box import Box, materialise, require, wait_for
from pipelines.drills.services import RUN_SECONDS, finished

STEPS, EVERY, KILLED_AFTER = 600, 20, 60
RANK_STEPS = 200  # each waits for both ranks


def resumed_from(text: str) -> int:
    """The step that a training said it resumed at; 0 where it did not."""
    _, found, rest = text.partition("resumed at step ")
    return int(rest.split("/")[0]) if found else 0


def latest(box: Box, asset: str) -> Manifest:
    """The latest version, with its files verified."""
    manifest = box.store().manifest(asset)
    require(manifest is not None, f"'{asset}' has no latest version")
    assert manifest is not None
    box.store().path(manifest)
    return manifest


def same_as_uninterrupted(box: Box, asset: str) -> None:
    """Train once more without a fault: the weights and the losses must be the same bytes."""
    digest = latest(box, asset).digest
    code, printed = box.materialise(asset, fresh=True)
    require(code == 0 and not resumed_from(printed), f"the uninterrupted training did not run: {printed[-500:]}")
    again = latest(box, asset)
    require(again.digest == digest, f"resumed {digest[:12]} and uninterrupted {again.digest[:12]} differ")


def kill_step() -> tuple[str, str]:
    """SIGKILL to the run's process in the middle of a training."""
    with Box() as box:
        box.profile(steps=20, checkpoint_every=EVERY)
        code, printed = box.materialise("trained")
        require(code == 0, f"the first training failed: {printed[-500:]}")
        good = latest(box, "trained")
        box.profile(steps=STEPS, checkpoint_every=EVERY)
        box.daemon()
        box.webserver()
        run = box.launch("trained_job")
        wait_for("the training to get on", lambda: box.checkpoint("trained") >= KILLED_AFTER, seconds=RUN_SECONDS)
        worker = box.worker(run)
        require(worker is not None, "the run's process was gone before it was killed")
        assert worker is not None
        worker.send_signal(signal.SIGKILL)
        begun = time.monotonic()
        wait_for("the run to be marked failed", lambda: box.statuses()[run] == "FAILURE", seconds=RUN_SECONDS)
        took = time.monotonic() - begun
        require(latest(box, "trained") == good, "the last good version is not the latest any more")
        again = box.launch("trained_job")
        finished(box, [again], seconds=RUN_SECONDS)
        with box.instance() as instance:
            step = resumed_from("\n".join(entry.user_message for entry in instance.all_logs(again)))
        require(step >= KILLED_AFTER, f"the second run started at step {step}, not at the checkpoint")
        same_as_uninterrupted(box, "trained")
    return "run killed in the middle of a training", f"marked failed after {took:.1f} s; launched again, resumed at step {step} to the same weights"


def kill_rank() -> tuple[str, str]:
    """SIGKILL to one of two training ranks."""
    with Box() as box:
        box.profile(steps=RANK_STEPS, checkpoint_every=EVERY)
        training = box.start(*materialise("trained_by_ranks"), log="ranks")
        wait_for("the ranks to get on", lambda: box.checkpoint("trained_by_ranks") >= KILLED_AFTER, seconds=2 * RUN_SECONDS)
        ranks = _ranks(box)
        require(sorted(ranks) == [0, 1], f"ranks {sorted(ranks)} were alive instead of 0 and 1")
        ranks[1].send_signal(signal.SIGKILL)
        begun = time.monotonic()
        wait_for("the asset to fail", lambda: training.poll() is not None, seconds=RUN_SECONDS)
        took = time.monotonic() - begun
        said = box.printed("ranks")
        require(training.returncode == 1 and "a training rank died" in said, f"exit code {training.returncode}: {said[-500:]}")
        require(not box.processes(), f"processes were left: {[p.cmdline()[:6] for p in box.processes()]}")
        require(box.store().manifest("trained_by_ranks") is None, "a half-trained model was published")
        code, printed = box.materialise("trained_by_ranks")
        step = resumed_from(printed)
        require(code == 0 and step >= KILLED_AFTER, f"exit code {code}, resumed at {step}: {printed[-500:]}")
        same_as_uninterrupted(box, "trained_by_ranks")
    return "one of two ranks killed", f"the asset failed after {took:.1f} s, no rank left; the same command resumed at step {step} to the same loss"


def _ranks(box: Box) -> dict[int, psutil.Process]:
    """The live training ranks by their number."""
    found = {}
    for process in box.processes():
        environment = process.environ()
        if "pipelines.drills.ranks" in process.cmdline() and "RANK" in environment:
            found[int(environment["RANK"])] = process
    return found
