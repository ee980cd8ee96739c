"""The closing table of a run, for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from curriculum.evaluation.gate import Judgement, MilestoneRow, Verdict
from curriculum.evaluation.regression import Change, Outcome
from curriculum.report.card import change_cells, row_cells
from curriculum.report.topics import FLOOR_HELD, NO_CLAIM, TopicRow, by_part, tally

_STYLES = {"passed": "green", "FAILED": "bold red", "no floor": "dim"}
_TOPIC_STYLES = {"PASSED": "green", FLOOR_HELD: "yellow", "FAILED": "bold red", "MISSING": "bold red", "NOT RUN": "yellow", NO_CLAIM: "dim"}
_EXIT = {0: "all well", 1: "a bar failed or a score regressed", 2: "the run broke, or a result is missing"}


def print_tables(rows: list[MilestoneRow], held: dict[str, Judgement], changes: list[Change], card: Path, code: int) -> None:
    """Print the milestones, the changes since the baseline, the checks that did not pass, the card's path, and the exit code."""
    console = Console(soft_wrap=False)
    table = Table(title="Milestones", title_justify="left")
    for column in ("milestone", "reference", "stand-in value", "floor", "verdict"):
        table.add_column(column, overflow="fold")
    for row in rows:
        *cells, verdict = row_cells(row)
        table.add_row(*cells, f"[{_STYLES[verdict]}]{verdict}[/]")
    if rows:
        console.print(table)
    print_changes(changes, "baseline", "now")
    run = {name: j for name, j in held.items() if j.verdict is not Verdict.NOT_RUN}
    wrong = {name: j for name, j in run.items() if j.verdict is not Verdict.PASSED}
    waiting = sorted({j.bar.asset for j in held.values()} - {j.bar.asset for j in run.values()})
    console.print(f"{len(run) - len(wrong)} of {len(run)} checks passed" + (f"; deep studies not run yet: {', '.join(waiting)}" if waiting else ""))
    for name, judgement in wrong.items():
        kind = "" if judgement.bar.blocking else " (warns)"
        console.print(f"  {judgement.verdict.value}{kind}: {name}: {judgement.reason}", markup=False)
    console.print(f"report card: {card}", markup=False, soft_wrap=True)
    console.print(f"gate: {code} ({_EXIT[code]})", markup=False)


def print_changes(changes: list[Change], first: str, second: str) -> None:
    """Print every score under regression: what it was, what it is, the gain with its interval, and the outcome."""
    measured = [c for c in changes if c.gain is not None]
    console = Console(soft_wrap=False)
    if measured:
        table = Table(title=f"Per-example scores, {first} to {second}", title_justify="left")
        for column in ("score", first, second, "gain [95%]", "margin", "outcome"):
            table.add_column(column, overflow="fold", no_wrap=column in ("score", "margin", "outcome"))
        for change in measured:
            style = {Outcome.HELD: "green"}.get(change.outcome, "bold red" if change.failed else "yellow")
            score, *cells, _, _ = change_cells(change)
            table.add_row(score.replace(".", "\n.", 1), *cells, f"[{style}]{change.outcome.value}[/]")  # fits a terminal of 80 columns
        console.print(table)
    without = [c.regression for c in changes if c.outcome is Outcome.NO_BASELINE]
    if without:
        assets = ", ".join(dict.fromkeys(r.asset for r in without))
        console.print(f"{len(without)} scores have no baseline yet ({assets}); `curriculum accept` makes the present state one", markup=False)
    for change in changes:
        if change.gain is None and change.outcome is not Outcome.NO_BASELINE:
            console.print(f"  {change.outcome.value}: {change.reason}", markup=False)


def print_metrics(rows: list[tuple[str, str, str, str]], first: str, second: str) -> None:
    """Print headline metrics of two states side by side."""
    if not rows:
        return
    table = Table(title="Headline metrics of the results that differ", title_justify="left")
    for column in ("asset", "metric", first, second):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=False).print(table)


def print_topics(rows: list[TopicRow]) -> None:
    """Print every topic, a heading with the worst verdict of its claims, and under it each claim: metric, value, bar and verdict."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(soft_wrap=False, width=120)  # a log has room
    roomy = console.width >= 120
    for part, within in by_part(rows):
        table = Table(title=f"Topics of {part.id}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in ("topic, and what it claims", "value [95%]", "bar", "verdict"):
            whole = column == "verdict" or (roomy and column.startswith("topic"))  # values and bars fold sooner than names
            table.add_column(column, overflow="fold", no_wrap=whole)
        for row in within:
            style = _TOPIC_STYLES[row.verdict]
            table.add_row(f"[bold]{escape(row.topic.title)}[/]\n[dim]{row.topic.id}[/]", "", "", f"[{style}]{row.verdict}[/]")
            for claim in row.claims:
                table.add_row(f"  {claim.metric}", escape(claim.value), claim.bar, f"[{_TOPIC_STYLES[claim.verdict]}]{claim.verdict}[/]")
        console.print(table)
    for claim in (one for row in rows for one in row.claims if one.verdict in {"FAILED", "MISSING"}):
        console.print(f"  {claim.verdict}: {claim.check}: {claim.judgement.reason}", markup=False)
    console.print(tally(rows), markup=False)
