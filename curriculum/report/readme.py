"""The README's figures: rendered from recorded results, so that they cannot drift from what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curriculum.errors import UserError
from curriculum.evaluation.gate import Judgement, MilestoneRow, Verdict, active_bars, judge
from curriculum.report.card import row_cells
from curriculum.report.topics import TopicRow, as_markdown, topic_rows
from curriculum.results import RunRecord, StudyResult
from curriculum.syllabus import Bar, Syllabus

README_PROFILE = "starter"  # whose figures the README and docs/topics.md show
BEGIN, END = "<!-- figures: written by `make readme` -->", "<!-- end of figures -->"


def every_figure(result: StudyResult) -> list[list[Any]]:
    """[metric, value with its interval, n] of all of a study's metrics."""
    return [[m.name, m.text(), m.n] for m in result.metrics]


def headline(figures: dict[str, list[list[Any]]]) -> dict[str, list[list[Any]]]:
    """Of every study its main figures: those of one row of its tables have "__" in their names."""
    return {study: [figure for figure in found if "__" not in figure[0]] for study, found in figures.items()}


def record(
    profile: Any, rows: list[MilestoneRow], held: dict[str, Judgement], results: dict[str, StudyResult], kept: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What was measured, of the results there are, as JSON-able data.

    ``kept`` is the record so far. What it says of an asset that has no result here stands, with where and when that was measured:
    studies run for hours and on more than one machine.
    """
    kept = kept or {}
    runs = {name: result.run for name, result in results.items() if result.run}
    before, checks = kept.get("checks", {}), {name: [j.verdict.value, j.value] for name, j in held.items()}
    here = {name: _measured(run) for name, run in runs.items()}
    return {
        "profile": profile.name,
        "measured": kept.get("measured", {}) | here,
        "peak_memory_gib": max(kept.get("peak_memory_gib", 0), *(round(r.peak_memory_bytes / 2**30, 2) for r in runs.values()), 0),
        "milestones": _milestones(rows, kept.get("milestones", [])),
        "figures": kept.get("figures", {}) | {name: every_figure(result) for name, result in results.items()},
        "remarks": kept.get("remarks", {}) | {name: result.remarks for name, result in results.items()},
        "checks": checks | {name: _kept(before[name], j.bar) for name, j in held.items() if not j.made and name in before},
    }


def _kept(check: list[Any], bar: Bar) -> list[Any]:
    """A recorded check under the present bar: the value stands, its verdict is today's. That of a judged metric needs its judge, and stands."""
    verdict, value = check
    judged = value is None or bar.judged_by is not None
    return [verdict if judged else judge(bar, value).verdict.value, value]


def _measured(run: RunRecord) -> dict[str, Any]:
    return {"hardware": run.hardware, "threads": run.threads, "on": run.started_at[:10], "minutes": round(run.wall_seconds / 60, 1)}


def _milestones(rows: list[MilestoneRow], kept: list[list[str]]) -> list[list[str]]:
    """A row a milestone: from ``kept`` where nothing here has made any of its values."""
    before = {cells[0]: cells for cells in kept}
    found = [([*row_cells(row), row.measured_on], any(j.made for j in row.values)) for row in rows]
    return [cells if made else before.get(cells[0], cells) for cells, made in found]


def hardware(data: dict[str, Any]) -> str:
    """The machines of a record, in words."""
    return " and ".join(sorted({m["hardware"] for m in data["measured"].values()}))


def recorded_judgements(data: dict[str, Any], bars: dict[str, Bar]) -> dict[str, Judgement]:
    """The verdicts that a record keeps, by check name; a bar that is newer than the record is not run."""
    found = {}
    for name, bar in bars.items():
        verdict, value = data["checks"].get(name, [Verdict.NOT_RUN.value, None])
        found[name] = Judgement(bar, value, Verdict(verdict), f"{bar.asset}.{bar.metric} as recorded", made=name in data["checks"])
    return found


def write_record(data: dict[str, Any], path: Path) -> None:
    """Keep a record under version control."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def render(data: dict[str, Any]) -> str:
    """The Markdown between the markers."""
    verdicts = [verdict for verdict, _ in data["checks"].values() if verdict != "not run"]
    threads = max((m["threads"] for m in data["measured"].values()), default=0)
    lines = [
        f"Profile `{data['profile']}` on {hardware(data)}, {threads} threads: {verdicts.count('passed')} of {len(verdicts)} checks "
        f"passed, peak memory {data['peak_memory_gib']} GiB.",
        "",
        "| weeks, milestone | reference | measured here on | stand-in value | floor | verdict |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {m} | {ref} | {on} | {value} | {floor} | {verdict} |" for m, ref, value, floor, verdict, on in data["milestones"]]
    return "\n".join(lines)


def recorded_topics(data: dict[str, Any], syllabus: Syllabus, profile: Any) -> list[TopicRow]:
    """Every topic with the values and verdicts that the record keeps."""
    return topic_rows(syllabus, profile, recorded_judgements(data, active_bars(syllabus, profile)))


def topics_page(data: dict[str, Any], rows: Sequence[TopicRow]) -> str:
    """docs/topics.md: the topics of :func:`recorded_topics`."""
    return as_markdown(rows, f"As recorded under the profile `{data['profile']}` on {hardware(data)}, deep studies too; written by `make readme`.")


def refreshed(readme: str, data: dict[str, Any]) -> str:
    """``readme`` with its figures replaced by those of ``data``.

    Raises:
        UserError: the markers are not both there.
    """
    before, found_begin, rest = readme.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end):
        raise UserError(f"the README has lost its markers; put '{BEGIN}' and '{END}' around its figures")
    return f"{before}{BEGIN}\n{render(data)}\n{END}{after}"
