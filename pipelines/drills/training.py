"""A fault of a training: its process is killed."""

from __future__ import annotations

import signal
import time

from curriculum.storage import Manifest
from pipelines.drills.box import Box, require, wait_for
from pipelines.drills.services import RUN_SECONDS, finished

STEPS, EVERY, KILLED_AFTER = 600, 20, 60


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
