"""Every figure that was recorded under a profile, as one page: what the README and docs/topics.md are for the starter profile alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curriculum.evaluation.gate import Verdict
from curriculum.report.readme import hardware
from curriculum.results import StudyResult

Figure = Sequence[Any]  # name, value with its interval, n


def every_figure(result: StudyResult) -> list[list[Any]]:
    """[metric, value with its interval, n] of all of a study's metrics."""
    return [[m.name, m.text(), m.n] for m in result.metrics]


def figures_page(data: dict[str, Any], description: str) -> str:
    """A record as Markdown: a section a study, its main metrics, then a table of those that are told apart by ``__``."""
    verdicts = [verdict for verdict, _ in data["checks"].values() if verdict not in (Verdict.NOT_RUN.value, Verdict.MISSING.value)]
    lines = [
        f"# Profile `{data['profile']}`", "",
        f"{description} Measured on {hardware(data)}; {verdicts.count('passed')} of {len(verdicts)} checks passed. "
        f"Written by `curriculum readme --profile {data['profile']}` from `results/{data['profile']}.json`.",
    ]  # fmt: skip
    for study, figures in sorted(data["figures"].items()):
        on = data["measured"].get(study, {}).get("on")
        lines += ["", f"## {study}", *(["", f"Measured on {on}."] if on else []), *_main(figures), *_by_row(figures)]
    return "\n".join(lines) + "\n"


def _main(figures: Sequence[Figure]) -> list[str]:
    rows = [f"| {name} | {value} | {'' if n is None else n} |" for name, value, n in figures if "__" not in name]
    return ["", "| figure | value | n |", "|---|---|---|", *rows] if rows else []


def _by_row(figures: Sequence[Figure]) -> list[str]:
    """One line for what follows the first ``__`` of a name (a system, a track), one column for what stands before it."""
    cells: dict[str, dict[str, str]] = {}
    for name, value, _ in figures:
        measure, split, row = name.partition("__")
        if split:
            cells.setdefault(row.replace("__", ", "), {})[measure] = value
    columns = list(dict.fromkeys(measure for row in cells.values() for measure in row))
    if not columns:
        return []
    head = ["", f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return [*head, *(f"| {row} | {' | '.join(own.get(measure, '') for measure in columns)} |" for row, own in sorted(cells.items()))]
