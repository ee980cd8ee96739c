"""Every figure that was recorded under a profile, as pages: one for the profile, or one for each part of the syllabus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curriculum.evaluation.gate import Verdict
from curriculum.report.readme import hardware
from curriculum.report.topics import TopicRow

OTHER = "other"
Figure = Sequence[Any]  # name, value with its interval, n


def figures_page(data: dict[str, Any], description: str) -> str:
    """A record as Markdown: a section a study, what its authors remark, its main metrics, then a table of those that are told apart by ``__``."""
    verdicts = [verdict for verdict, _ in data["checks"].values() if verdict not in (Verdict.NOT_RUN.value, Verdict.MISSING.value)]
    lines = [
        f"# Profile `{data['profile']}`", "",
        f"{description} Measured on {hardware(data)}; {verdicts.count('passed')} of {len(verdicts)} checks passed. "
        f"Written by `curriculum readme --profile {data['profile']}` from `results/{data['profile']}.json`.",
        *_sections(data, sorted(data["figures"])),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def part_pages(data: dict[str, Any], rows: Sequence[TopicRow]) -> dict[str, str]:
    """The record as a Markdown page for each part that it says something of, by the part's id: its studies as in :func:`figures_page`.

    ``rows`` are the profile's topics: a study stands with the part that most of the bars on it are of, or under ``other`` without a bar.
    """
    studies: dict[str, list[str]] = {}
    for name in sorted(data["figures"]):
        studies.setdefault(part_of(name, rows), []).append(name)
    titles = {row.part.id: row.part.title for row in rows} | {OTHER: "Studies that no bar is on"}
    said = f"Every figure of these studies under the profile `{data['profile']}`, on {hardware(data)}; written by `make readme`."
    return {part: "\n".join([f"# {titles[part]}", "", said, *_sections(data, own)]) + "\n" for part, own in studies.items()}


def part_of(asset: str, rows: Sequence[TopicRow]) -> str:
    """The id of the part that most of the bars on an asset belong to; ``other`` where there is none."""
    found = [row.part.id for row in rows for claim in row.claims if claim.judgement.bar.asset == asset]
    return max(found, key=found.count, default=OTHER)


def _sections(data: dict[str, Any], studies: Sequence[str]) -> list[str]:
    lines = []
    for study in studies:
        figures, remarks = data["figures"][study], data.get("remarks", {}).get(study, [])
        said = ["", *(f"- {' '.join(remark.split())}" for remark in remarks)] if remarks else []
        lines += ["", f"## {study}", *_when(data["measured"].get(study, {})), *said, *_main(figures), *_by_row(figures)]
    return lines


def _when(measured: dict[str, Any]) -> list[str]:
    if not measured:
        return []
    took = f", in {measured['minutes']:g} minutes" if "minutes" in measured else ""
    return ["", f"Measured on {measured['on']}{took}."]


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
