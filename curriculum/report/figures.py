"""Every figure that was recorded under a profile, as pages: one for the profile, or one for each part of the syllabus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from curriculum.evaluation.gate import Verdict
from curriculum.report.readme import hardware
from curriculum.syllabus import Bar, Part, Syllabus

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


def part_pages(data: dict[str, Any], syllabus: Syllabus) -> dict[str, str]:
    """The record as a Markdown page for each part that it says something of, by the part's id: its studies as in :func:`figures_page`."""
    pages = {}
    for part in syllabus.parts:
        studies = [name for name in sorted(data["figures"]) if part_of(name, syllabus) == part]
        if studies:
            said = f"Every figure of this part's studies under the profile `{data['profile']}`, on {hardware(data)}; written by `make readme`."
            pages[part.id] = "\n".join([f"# {part.title}", "", said, *_sections(data, studies)]) + "\n"
    return pages


def part_of(asset: str, syllabus: Syllabus) -> Part:
    """The part that most of the bars on an asset belong to; the first of all where there is no bar on it."""
    parts = {topic.id: part for part in syllabus.parts for topic in part.topics}
    found = [parts[topic] for bar, topics in _bars(syllabus) if bar.asset == asset for topic in topics]
    return max(found, key=found.count, default=syllabus.parts[0])


def _bars(syllabus: Syllabus) -> Iterable[tuple[Bar, Sequence[str]]]:
    """Every bar with the topics it is about."""
    yield from ((bar, [bar.topic]) for bar in syllabus.claims if bar.topic)
    yield from ((bar, [bar.topic] if bar.topic else one.topics) for one in syllabus.roadmap for bar in one.bars)


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
