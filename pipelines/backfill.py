"""``curriculum backfill``: the rows of a study made one run a partition by the orchestrator's own backfill, followed, and compared.

A process of its own (``python -m pipelines.backfill``), so that the command line needs no orchestrator until one is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.lineage import PROFILE_TAG
from assets.rows import OWN_CORPORA
from curriculum.backfill import Outcome, close, outcome_line, resume_line
from curriculum.disk import write_atomically
from curriculum.errors import UserError
from curriculum.profile import load_profile
from curriculum.results import StudyResult
from curriculum.rows.registry import choose, row_study
from curriculum.storage import ArtifactStore, partition_name
from pipelines.daemon import Daemon, end_group
from pipelines.jobs import rows_job
from resources.build import build_resources, home

BACKFILL_TAG = "curriculum/backfill"
PARTITION_TAG = "dagster/partition"
_POLL_SECONDS = 0.5
_CANCEL_SECONDS = 30
_PROGRESS = {"loggers": {"progress": {"config": {}}}}


def say(line: str) -> None:
    print(line, flush=True)


class Backfill:
    """One backfill of ``asset``: what is to be made, what was made, and what is left to do."""

    def __init__(self, instance: dg.DagsterInstance, profile_name: str, asset: str) -> None:
        self.instance, self.profile_name, self.asset = instance, profile_name, asset
        self.profile, self.study = load_profile(profile_name), row_study(asset)
        self.store: ArtifactStore = build_resources(profile_name, home(), journal=False)["artifacts"].store()
        self.keys = self.study.keys(self.profile)
        self.folder = home() / "backfills" / self.profile.name
        self.id = secrets.token_hex(4)
        self.wanted: list[str] = []
        self.daemon = Daemon(instance, self.folder / "daemon.log", say)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else backfills this asset meanwhile; a lock that a killed command held is free.

        Raises:
            UserError: somebody does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{self.asset}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"another command is backfilling '{self.asset}'; wait for it, or end it") from error
            yield

    def plan(self, options: argparse.Namespace) -> None:
        """Choose the partitions, and end what an earlier backfill that was killed left in the queue.

        Raises:
            UserError: no such partition, none chosen, or nothing to resume.
        """
        earlier = self._earlier()
        self.cancel(earlier.get("id", ""))
        if options.all:
            self.wanted = self.keys
        elif options.missing:
            self.wanted = [key for key in self.keys if self.store.manifest(partition_name(self.asset, key)) is None]
        elif options.resume:
            if not earlier:
                raise UserError(f"there is no backfill of '{self.asset}' to resume; start one with --all, --missing or --partitions")
            done = {key for key, run in self.runs(earlier["id"]).items() if run.is_success}
            self.wanted = [key for key in earlier["partitions"] if key not in done]
            if gone := [key for key in self.wanted if key not in self.keys]:
                raise UserError(f"the profile has no partition {', '.join(gone)} any more; name the ones to make with --partitions")
        else:
            self.wanted = choose(self.keys, options.partitions)
        if options.all and not self.wanted:
            raise UserError(f"'{self.asset}' has no partitions under the profile '{self.profile.name}': name corpora in its section rows")

    def _earlier(self) -> dict[str, Any]:
        path = self.folder / f"{self.asset}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def inputs(self) -> None:
        """Make what the rows are made from, where it was never made.

        Raises:
            UserError: that failed.
        """
        from pipelines.definitions import defs

        graph = defs.resolve_asset_graph()
        absent: set[str] = set()
        for key in graph.toposorted_asset_keys:
            name, parents = key.to_user_string(), {parent.to_user_string() for parent in graph.get(key).parent_keys}
            if self.store.manifest(name) is None or parents & absent:
                absent.add(name)
        needed = {key.to_user_string() for key in graph.get_ancestor_asset_keys(dg.AssetKey(self.asset))} & absent
        if needed:
            say(f"making what the rows need: {', '.join(sorted(needed))}")
            if not self._materialise(needed).success:
                raise UserError(f"what '{self.asset}' needs could not be made; see the lines above")

    def _materialise(self, names: set[str]) -> dg.ExecuteInProcessResult:
        """Materialise unpartitioned assets in this process, as a run of the instance."""
        from pipelines.definitions import defs

        job = defs.resolve_implicit_global_asset_job_def()
        selection = [dg.AssetKey(name) for name in sorted(names)]
        return job.execute_in_process(
            instance=self.instance, asset_selection=selection, run_config=_PROGRESS, raise_on_error=False, tags={PROFILE_TAG: self.profile.name}
        )

    def launch(self) -> None:
        """Note what is to be made, and let the orchestrator queue a run for each partition.

        Raises:
            UserError: it did not.
        """
        if self.study.dynamic:
            self.instance.add_dynamic_partitions(OWN_CORPORA, self.keys)
        record = {"id": self.id, "asset": self.asset, "partitions": self.wanted}
        write_atomically(self.folder / f"{self.asset}.json", json.dumps(record).encode())
        self.daemon.ensure()
        command = [
            sys.executable, "-m", "dagster", "job", "backfill", "-m", "pipelines.definitions", "-j", rows_job(self.asset), "--noprompt",
            "--partitions", ",".join(self.wanted), "--tags", json.dumps({BACKFILL_TAG: self.id, PROFILE_TAG: self.profile.name}),
        ]  # fmt: skip
        # a session of its own, for it starts a code server: interrupted, that would live on for as long as it waits for a heartbeat
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as asked:
            try:
                said = asked.communicate()[0].decode(errors="replace")
            finally:
                end_group(asked)
        if asked.returncode != 0:
            raise UserError(f"the backfill could not be queued: {said.strip()[-1500:]}")

    def runs(self, backfill: str) -> dict[str, dg.DagsterRun]:
        """The run of each partition of a backfill."""
        found = self.instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: backfill})) if backfill else []
        return {run.tags[PARTITION_TAG]: run for run in reversed(found)}

    def follow(self) -> list[Outcome]:
        """Wait until every run has ended, with a line for each; what ended, in the order it did."""
        ended: dict[str, Outcome] = {}
        while len(ended) < len(self.wanted):
            self.daemon.ensure()
            for partition, run in self.runs(self.id).items():
                if run.is_finished and partition not in ended:
                    ended[partition] = self._outcome(partition, run)
                    say(outcome_line(ended[partition], len(ended), len(self.wanted)))
            time.sleep(_POLL_SECONDS)
        return list(ended.values())

    def _outcome(self, partition: str, run: dg.DagsterRun) -> Outcome:
        record = self.instance.get_run_record_by_id(run.run_id)
        seconds = (record.end_time or 0) - (record.start_time or record.end_time or 0) if record else 0.0
        manifest = self.store.manifest(partition_name(self.asset, partition)) if run.is_success else None
        row = StudyResult.load(self.store.path(manifest)) if manifest else None
        return Outcome(partition, run.is_success, seconds, row, "" if run.is_success else self._error(run))

    def _error(self, run: dg.DagsterRun) -> str:
        for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
            for record in self.instance.get_records_for_run(run.run_id, of_type=kind).records:
                event = record.event_log_entry.dagster_event
                error = getattr(event.event_specific_data, "error", None) if event else None
                while error is not None and error.cause is not None:
                    error = error.cause
                if error is not None or (event and event.message):
                    said = " ".join((error.message if error else event.message).split())
                    return re.sub(r"^curriculum\.errors\.\w+: ", "", said)  # a user's error is a sentence of its own
        return f"run {run.run_id[:8]} was {run.status.value.lower()}"

    def cancel(self, backfill: str) -> None:
        """End the runs of a backfill that have not ended: those in the queue at once, the one that computes when it lets go."""
        deadline = time.monotonic() + _CANCEL_SECONDS
        asked: set[str] = set()
        while open_ := [run for run in self.runs(backfill).values() if not run.is_finished]:
            for run in open_:
                if time.monotonic() > deadline:
                    self.instance.report_run_canceled(run, "It did not end when it was told to; its process is ended with the daemon.")
                elif run.run_id not in asked:
                    asked.add(run.run_id)
                    with contextlib.suppress(Exception):  # its code server may be gone: then the deadline decides
                        self.instance.run_coordinator.cancel_run(run.run_id)
            time.sleep(_POLL_SECONDS)

    def table(self) -> bool:
        """Compare the rows there are; False where that failed. A table that a blocking bar fails is made all the same."""
        return bool(self._materialise({self.study.table}).asset_materializations_for_node(self.study.table))


def run(options: argparse.Namespace) -> int:
    """Make the rows and their table; the exit code is the gate's: 1 where a bar on the table fails, 2 where a partition did."""
    with dg.DagsterInstance.get() as instance:
        backfill = Backfill(instance, options.profile, options.asset)
        with backfill.alone():
            backfill.plan(options)
            outcomes: list[Outcome] = []
            try:
                if backfill.wanted:
                    say(f"{options.asset}: {len(backfill.wanted)} of {len(backfill.keys)} partitions: {', '.join(backfill.wanted)}")
                    backfill.inputs()
                    backfill.launch()
                    outcomes = backfill.follow()
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough: what follows takes seconds
                say("interrupted: ending the runs that have not finished")
                backfill.cancel(backfill.id)
                done = [key for key, one in backfill.runs(backfill.id).items() if one.is_success]
                say(resume_line(options.asset, options.profile, len(done), len(backfill.wanted)))
                return 2
            finally:
                backfill.daemon.stop()
            return close(backfill.asset, options.profile, backfill.store, outcomes, table_made=backfill.table())


def main() -> None:
    """Entry point of ``python -m pipelines.backfill``."""
    parser = argparse.ArgumentParser(prog="curriculum backfill")
    parser.add_argument("asset")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--partitions", default="")
    for name in ("all", "missing", "resume"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    os.environ["CURRICULUM_PROFILE"] = options.profile
    for asked in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts what it puts in the background with it ignored
        signal.signal(asked, signal.default_int_handler)
    try:
        code = run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 2
    raise SystemExit(code)


if __name__ == "__main__":
    main()
