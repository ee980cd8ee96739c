"""The closing table of a run, for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from curriculum.evaluation.gate import Judgement, MilestoneRow, Verdict
from curriculum.report.card import row_cells

_STYLES = {"passed": "green", "FAILED": "bold red", "no floor": "dim"}
_EXIT = {0: "all well", 1: "a bar failed", 2: "the run broke, or a result is missing"}


def print_tables(rows: list[MilestoneRow], held: dict[str, Judgement], card: Path, code: int) -> None:
    """Print the milestones, the checks that did not pass, the card's path and what the exit code means."""
    console = Console(soft_wrap=False)
    table = Table(title="Milestones", title_justify="left")
    for column in ("milestone", "reference", "stand-in value", "floor", "verdict"):
        table.add_column(column, overflow="fold")
    for row in rows:
        *cells, verdict = row_cells(row)
        table.add_row(*cells, f"[{_STYLES[verdict]}]{verdict}[/]")
    console.print(table)
    wrong = {name: j for name, j in held.items() if j.verdict is not Verdict.PASSED}
    passed = len(held) - len(wrong)
    console.print(f"{passed} of {len(held)} checks passed")
    for name, judgement in wrong.items():
        kind = "" if judgement.bar.blocking else " (warns)"
        console.print(f"  {judgement.verdict.value}{kind}: {name}: {judgement.reason}", markup=False)
    console.print(f"report card: {card}", markup=False, soft_wrap=True)
    console.print(f"gate: {code} ({_EXIT[code]})", markup=False)
