"""Every drill in turn, its verdict in one table, and in ``drills.json`` and ``drills.md`` of the home: ``curriculum drills [NAME ...]``."""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from curriculum.cli import home
from curriculum.disk import write_atomically
from curriculum.errors import UserError
from curriculum.hardware import describe_hardware
from pipelines.drills.box import Failed, NotRun
from pipelines.drills.filling import fill_disk
from pipelines.drills.postgres import cut_postgres
from pipelines.drills.services import cut_power, kill_daemon, kill_webserver, queue
from pipelines.drills.storing import corrupt, jump_clock, two_writers
from pipelines.drills.training import kill_rank, kill_step

Drill = Callable[[], tuple[str, str]]  # returns what was done, and how it came back; raises Failed or NotRun

DRILLS: dict[str, Drill] = {
    "daemon": kill_daemon,
    "webserver": kill_webserver,
    "power": cut_power,
    "step": kill_step,
    "rank": kill_rank,
    "postgres": cut_postgres,
    "disk": fill_disk,
    "corrupt": corrupt,
    "clock": jump_clock,
    "writers": two_writers,
    "queue": queue,
}


class Verdict(StrEnum):
    """What a drill came to."""

    HELD = "held"
    FAILED = "FAILED"
    NOT_RUN = "skipped"


@dataclass(frozen=True)
class Outcome:
    """One row of the table. ``found`` is how it came back, or else what was lost, or what the machine lacks."""

    drill: str
    verdict: Verdict
    fault: str
    found: str
    seconds: float


def run_drill(name: str, drill: Drill) -> Outcome:
    """Run one drill; whatever it raises, also what nobody foresaw, is its verdict."""
    begun, fault = time.monotonic(), ""
    try:
        fault, found = drill()
        verdict = Verdict.HELD
    except NotRun as reason:
        verdict, found = Verdict.NOT_RUN, str(reason)
    except Failed as harm:
        verdict, found = Verdict.FAILED, str(harm)
    except Exception as error:
        verdict, found = Verdict.FAILED, f"{type(error).__name__}: {error}"
    return Outcome(name, verdict, fault, found, round(time.monotonic() - begun, 1))


def run_all(drills: dict[str, Drill], record: Path) -> list[Outcome]:
    """Run ``drills`` in turn; ``record`` holds what is known after each one, so that a stopped command loses none."""
    outcomes: list[Outcome] = []
    for name, drill in drills.items():
        print(f"{name}: {(drill.__doc__ or '').strip() or 'running'}", file=sys.stderr, flush=True)
        outcomes.append(run_drill(name, drill))
        print(f"{name}: {outcomes[-1].verdict} after {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
        data = {"at": datetime.now(UTC).isoformat(), "machine": platform.platform(), "drills": [asdict(outcome) for outcome in outcomes]}
        write_atomically(record, json.dumps(data, indent=1).encode())
    return outcomes


def exit_code(outcomes: list[Outcome]) -> int:
    """0 all held, 1 a drill failed, 2 none failed and one could not be run on this machine (or has no such name)."""
    verdicts = {outcome.verdict for outcome in outcomes}
    return 1 if Verdict.FAILED in verdicts else 2 if Verdict.NOT_RUN in verdicts else 0


def page(outcomes: list[Outcome]) -> str:
    """The table as Markdown, as docs/drills.md holds it."""
    held, seconds = sum(o.verdict is Verdict.HELD for o in outcomes), sum(o.seconds for o in outcomes)
    rows = [[o.drill, o.verdict, f"{o.seconds:.0f}", o.fault, o.found] for o in outcomes]
    lines = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return "\n".join(
        [
            "# Fault drills", "",
            f"Written by `make drills` on {describe_hardware('cpu')}: temporary installations are broken on purpose, and each fault gets its",
            'verdict. `make drills NAMES="step clock"` runs those alone.', "", f"{held} of {len(outcomes)} held, in {seconds:.0f} s.", "",
            "| drill | verdict | s | fault | how it came back, or what was lost |", "|---|---|---|---|---|", *(f"| {line} |" for line in lines), "",
        ]
    )  # fmt: skip


def print_table(outcomes: list[Outcome]) -> None:
    """One row a drill: the verdict, the seconds, the fault, and how it came back or what was lost."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Fault drills", title_justify="left", show_lines=True)
    for column in ("drill", "verdict", "s"):
        table.add_column(column, no_wrap=True)
    for column in ("fault", "how it came back, or what was lost"):
        table.add_column(column, overflow="fold")
    styles = {Verdict.HELD: "green", Verdict.FAILED: "bold red", Verdict.NOT_RUN: "yellow"}
    for outcome in outcomes:
        table.add_row(
            outcome.drill, f"[{styles[outcome.verdict]}]{outcome.verdict}[/]", f"{outcome.seconds:.0f}", escape(outcome.fault), escape(outcome.found)
        )
    Console().print(table)


def chosen(names: list[str]) -> dict[str, Drill]:
    """The drills of ``names``, or all of them.

    Raises:
        UserError: a name that no drill has.
    """
    unknown = [name for name in names if name not in DRILLS]
    if unknown:
        raise UserError(f"no drill is called {', '.join(unknown)}; there are {', '.join(DRILLS)}")
    return {name: DRILLS[name] for name in names or DRILLS}


def _stop(*_: object) -> None:
    raise SystemExit(143)  # unwinds, so that the box in use ends its processes


def main() -> None:
    """Run the drills named, print the table, and exit by :func:`exit_code`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    signal.signal(signal.SIGTERM, _stop)
    record = home() / "drills.json"
    try:
        drills = chosen(parser.parse_args().names)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    outcomes = run_all(drills, record)
    print_table(outcomes)
    write_atomically(record.with_suffix(".md"), page(outcomes).encode())
    held, seconds = sum(o.verdict is Verdict.HELD for o in outcomes), sum(o.seconds for o in outcomes)
    print(f"{held} of {len(outcomes)} drills held, in {seconds:.0f} s; record: {record}")
    raise SystemExit(exit_code(outcomes))


if __name__ == "__main__":
    main()
