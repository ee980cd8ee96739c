"""Faults of the services: the daemon, the webserver, the whole machine, and a long queue."""

from __future__ import annotations

import time
from collections import Counter

import dagster as dg

from pipelines.drills.box import Box, require, wait_for

RUN_SECONDS = 300  # a run of a few seconds, on a machine that does other things too


def finished(box: Box, runs: list[str], *, seconds: float) -> None:
    """Wait until every run has succeeded; Failed at the first that did not."""

    def all_succeeded() -> bool:
        statuses = box.statuses()
        bad = {run: statuses.get(run) for run in runs if statuses.get(run) in {None, "FAILURE", "CANCELED"}}
        require(not bad, f"runs were lost or failed: {bad}")
        return all(statuses[run] == "SUCCESS" for run in runs)

    wait_for(f"{len(runs)} runs to succeed", all_succeeded, seconds=seconds, every=0.5)


def whole(box: Box, asset: str, versions: int) -> None:
    """Every version of ``asset`` is there and verified, and one materialisation was recorded for each."""
    store = box.store()
    found = store.versions(asset)
    require(len(found) == versions, f"{len(found)} versions of '{asset}' instead of {versions}")
    for manifest in found:
        store.path(manifest)
    with box.instance() as instance:
        events = instance.get_records_for_run  # one materialisation a run, none twice
        made = Counter(
            record.event_log_entry.run_id
            for run in instance.get_runs()
            for record in events(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
        )
    require(len(made) == versions and set(made.values()) == {1}, f"{len(made)} runs materialised, at most {max(made.values(), default=0)} times each")


def kill_daemon() -> tuple[str, str]:
    """SIGKILL to the daemon while runs are queued."""
    with Box(CURRICULUM_FRESH="1") as box:
        daemon, _ = box.daemon(), box.webserver()
        runs = [box.launch("tick_job", number) for number in range(3)]
        wait_for("a run to start", lambda: "STARTED" in box.statuses().values(), seconds=RUN_SECONDS)
        daemon.kill()
        daemon.wait()
        time.sleep(3)  # nothing takes from the queue now
        waiting = sum(status == "QUEUED" for status in box.statuses().values())
        require(waiting > 0, "no run was left in the queue: the drill came too late")
        box.daemon()
        finished(box, runs, seconds=len(runs) * RUN_SECONDS)
        whole(box, "tick", len(runs))
    return f"daemon killed with {waiting} of {len(runs)} runs queued", "the daemon, started again, drained the queue"


def kill_webserver() -> tuple[str, str]:
    """SIGKILL to the webserver while a run it launched goes on."""
    with Box() as box:
        box.profile(steps=400, checkpoint_every=20)
        box.daemon()
        server = box.webserver()
        run = box.launch("trained_job")
        wait_for("the training to write a checkpoint", lambda: box.checkpoint("trained"), seconds=RUN_SECONDS)
        server.kill()
        server.wait()
        require(box.statuses()[run] == "STARTED", "the run had ended before the webserver was killed")
        finished(box, [run], seconds=RUN_SECONDS)
        whole(box, "trained", 1)
        box.webserver()
        require(box.shown(run) == "SUCCESS", f"the new webserver shows the run as {box.shown(run)}")
    return "webserver killed in the middle of a run", "the run finished; the webserver, started again, shows it"


def cut_power() -> tuple[str, str]:
    """SIGKILL to everything at once: webserver, daemon, code servers, the run in progress."""
    with Box() as box:
        box.profile(steps=100_000, checkpoint_every=20)
        box.daemon()
        box.webserver()
        dead, queued = box.launch("trained_job"), box.launch("tick_job")
        wait_for("the training to write a checkpoint", lambda: box.checkpoint("trained"), seconds=RUN_SECONDS)
        box.kill(box.processes())
        require(box.statuses()[dead] == "STARTED", "the run should not have known its end")
        begun = time.monotonic()
        box.daemon()
        wait_for("the dead run to be marked failed", lambda: box.statuses()[dead] == "FAILURE", seconds=RUN_SECONDS)
        took = time.monotonic() - begun
        finished(box, [queued], seconds=RUN_SECONDS)
    return "every process killed, one run in progress, one queued", f"the daemon marked the dead run failed after {took:.0f} s and ran the queued one"


def queue(runs: int = 50) -> tuple[str, str]:
    """Many runs at once on an instance that runs one at a time."""
    with Box(CURRICULUM_FRESH="1") as box:
        box.daemon()
        box.webserver()
        ids = [box.launch("tick_job", number) for number in range(runs)]
        begun = time.monotonic()
        finished(box, ids, seconds=runs * 60)
        took = time.monotonic() - begun
        require(set(box.statuses()) == set(ids), "the instance holds other runs than were launched")
        whole(box, "tick", runs)
    return f"{runs} runs queued, one at a time", f"all finished once, {took / runs:.1f} s a run"
