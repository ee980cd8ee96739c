"""The four uses, seen working, as one transcript: ``.venv/bin/python docs/uses.py --home .curriculum`` writes docs/uses-INSTANCE.md.

Everything is done by the project's own commands and by requests to its own UI, on a copy of a finished home; the instance is the
one that the environment asks for (SQLite, or the Postgres of CURRICULUM_POSTGRES_URL). The schedule is made to look as if it had been
started a week ago: the daemon makes up for the Sunday it missed. The regression is planted, as for the screenshots.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from docs.screenshots import ask, copied, plant_regression, served  # noqa: E402 - the project's root is no package that is installed

_WHERE = {"repositoryName": "__repository__", "repositoryLocationName": "pipelines.definitions"}
_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_RUNS = "{ runsOrError(limit: 20) { ... on Runs { results { runId jobName status startTime endTime tags { key value } } } } }"
_EVENTS = """query($id: ID!) { runOrError(runId: $id) { ... on Run { assetMaterializations { assetKey { path } metadataEntries { label
  ... on TextMetadataEntry { text } } } assetChecks { name assetKey { path } } } } }"""
_START = "mutation($which: ScheduleSelector!) { startSchedule(scheduleSelector: $which) { __typename ... on PythonError { message } } }"
_TICKS = """query($which: ScheduleSelector!) { scheduleOrError(scheduleSelector: $which) { ... on Schedule { scheduleState {
  ticks(limit: 3) { status timestamp runIds } } } } }"""
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
_PATIENCE_SECONDS = 2700.0  # a retraining takes a quarter of an hour alone, and longer beside other work


class Transcript:
    """Markdown, written as it happens and printed alike."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, *lines: str) -> None:
        for line in lines:
            print(line, flush=True)
            self.lines.append(line)

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """What follows is what a terminal showed."""
        self.say("", "```")
        yield
        self.say("```", "")


def until(found: Callable[[], Any], what: str, patience: float = _PATIENCE_SECONDS) -> Any:
    """The first true answer of ``found``, asked every second.

    Raises:
        RuntimeError: there was none within ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(1.0)
    raise RuntimeError(f"{what} did not happen within {patience:.0f} s")


def ended(url: str, chosen: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The newest run that is ``chosen`` and has ended."""

    def find() -> Any:
        runs = ask(url, _RUNS)["runsOrError"]["results"]
        return next((run for run in runs if chosen(run) and run["status"] in _ENDED), None)

    return dict(until(find, "the end of the run"))


def text_of_run(run: dict[str, Any]) -> str:
    return f"run {run['runId'][:8]} of {run['jobName']}: {run['status']} in {run['endTime'] - run['startTime']:.0f} s"


def materialised_in_the_ui(url: str, out: Transcript) -> None:
    """What the Materialize button sends, and what came of it."""
    selector = {**_WHERE, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": ["attention_study"]}]}
    launched = ask(url, _LAUNCH, params={"selector": selector, "mode": "default"})["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise RuntimeError(f"the UI did not launch the run: {launched}")
    run = ended(url, lambda run: run["runId"] == launched["run"]["runId"])
    with out.block():
        out.say("Materialize attention_study", text_of_run(run))
        events = ask(url, _EVENTS, id=run["runId"])["runOrError"]
        for made in events["assetMaterializations"]:
            shown = {entry["label"]: entry.get("text") for entry in made["metadataEntries"]}
            out.say(f"materialised {made['assetKey']['path'][-1]}, version {shown['version']}")
    if run["status"] != "SUCCESS":
        raise RuntimeError("the run failed")


def backfilled(copy: Path, out: Transcript) -> None:
    """A study that is a table, made a run a row from the command line."""
    command = [sys.executable, "-m", "curriculum.cli", "backfill", "fusion_row", "--all"]
    done = subprocess.run(command, cwd=PROJECT, env=_environment(copy), capture_output=True, text=True, check=False)
    with out.block():
        out.say("$ curriculum backfill fusion_row --all", *_plain(done.stdout, copy))
        out.say(f"exit code {done.returncode}")
    if done.returncode != 0:
        raise RuntimeError(f"the backfill failed: {done.stderr[-2000:]}")


def stopped(copy: Path, alerts: list[dict[str, Any]], out: Transcript) -> None:
    """A planted regression, the check that failed the run, the alert that arrived, and the gate's exit code."""
    alerts.clear()
    plant_regression(copy)
    alert = until(lambda: next((a for a in alerts if "hybrid_search_report" in a["text"]), None), "the alert", 180)
    gate = subprocess.run(
        [sys.executable, "-m", "curriculum.cli", "gate"], cwd=PROJECT, env=_environment(copy), capture_output=True, text=True, check=False
    )
    with out.block():
        out.say("$ dagster asset materialize -m pipelines.definitions --select hybrid_search_report")
        out.say(f"run {alert['run_id'][:8]} {alert['status']}", "", "posted to CURRICULUM_WEBHOOK:", alert["text"][:600])
        out.say("", "$ curriculum gate", *(line for line in _plain(gate.stdout, copy) if "dense" in line or "regress" in line.lower()))
        out.say(f"exit code {gate.returncode}")
    if gate.returncode != 1:
        raise RuntimeError(f"the gate ended with {gate.returncode}, not with 1")


def retrained(url: str, copy: Path, out: Transcript) -> None:
    """A Sunday 03:00 that was missed: the schedule's tick, and the run it asked for."""
    which = {**_WHERE, "scheduleName": "weekly_retraining"}
    started = ask(url, _START, which=which)["startSchedule"]
    a_week_passes(copy)
    with out.block():
        out.say(f"start the schedule weekly_retraining: {started['__typename']}")
        ticks = until(lambda: ask(url, _TICKS, which=which)["scheduleOrError"]["scheduleState"]["ticks"], "the tick", 180)
        moment = datetime.fromtimestamp(ticks[0]["timestamp"], UTC)
        out.say(f"tick of {moment:%A %Y-%m-%d %H:%M} UTC: {ticks[0]['status']}")
        run = ended(url, lambda run: {"key": "dagster/schedule_name", "value": "weekly_retraining"} in run["tags"])
        out.say(text_of_run(run))
    if run["status"] != "SUCCESS":
        raise RuntimeError("the scheduled run failed")


def a_week_passes(copy: Path) -> None:
    """The schedule looks as if it had been started a week ago, and its daemon as if it had slept since."""
    from dagster._core.scheduler.instigation import InstigatorType, ScheduleInstigatorData

    with dg.DagsterInstance.from_config(str(copy / "dagster")) as instance:
        states = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
        started = next(state for state in states if state.name == "weekly_retraining")
        ago = started.instigator_data.start_timestamp - 7 * 86400
        instance.update_instigator_state(started.with_data(ScheduleInstigatorData(started.instigator_data.cron_schedule, ago)))


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on this machine: its address, and the alerts it was sent."""
    alerts: list[dict[str, Any]] = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Keep)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", alerts
    finally:
        server.shutdown()
        server.server_close()


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "CURRICULUM_HOME": str(copy), "PYTHONPATH": str(PROJECT)}


def _plain(text: str, copy: Path) -> list[str]:
    """Lines without the addresses of this machine, and without the orchestrator's own log lines."""
    lines = [line.rstrip().replace(str(copy), ".curriculum").replace(str(PROJECT) + "/", "") for line in text.splitlines()]
    return [line for line in lines if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line)]


def write(home: Path) -> Path:
    """Go through the four uses on a copy of ``home``; returns the transcript's path.

    Raises:
        RuntimeError: one of them did not work; nothing is written.
    """
    instance = "Postgres" if os.environ.get("CURRICULUM_POSTGRES_URL") else "SQLite"
    out = Transcript()
    out.say(f"# The four uses, on an instance on {instance}", "")
    out.say(f"Written by `docs/uses.py` on {datetime.now(UTC):%Y-%m-%d}, on a copy of a home in which `make run` had finished.")
    with copied(home) as copy, receiver() as (webhook, alerts):
        os.environ["CURRICULUM_WEBHOOK"] = webhook
        with served(copy) as url:
            out.say("", "## Materialising in the UI", "", "The UI and its daemon run as `make ui` starts them; the request is its button's.")
            materialised_in_the_ui(url, out)
            out.say("## A backfill from the command line", "", "A run a row, queued to the daemon, then the table of the rows.")
            backfilled(copy, out)
            out.say("## A check failure that stops a regression", "")
            out.say("Planted: every vector of the dense index is filed under its neighbour's id.")
            stopped(copy, alerts, out)
    with copied(home) as copy, served(copy) as url:
        out.say("## Scheduled retraining", "", "The schedule's start is moved back by a week: the daemon makes up for the Sunday it missed.")
        retrained(url, copy, out)
    path = PROJECT / "docs" / f"uses-{instance.lower()}.md"
    path.write_text("\n".join(out.lines).rstrip() + "\n", encoding="utf-8")
    return path


def main() -> None:
    """One instance's transcript."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--home", type=Path, default=PROJECT / ".curriculum", help="a home in which `make run` finished")
    print(write(options.parse_args().home.absolute()))


if __name__ == "__main__":
    main()
