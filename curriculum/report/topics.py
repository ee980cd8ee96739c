"""The topic table: what each topic of the syllabus claims, what was measured, and what the bar says. Nothing is judged here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curriculum.errors import UserError
from curriculum.evaluation.gate import Judgement, Verdict, check_suffix, is_reference
from curriculum.syllabus import Bar, Part, Syllabus, Topic

NO_CLAIM, FLOOR_HELD = "no claim yet", "floor held"
_WORDS = {Verdict.PASSED: "PASSED", Verdict.FAILED: "FAILED", Verdict.MISSING: "MISSING", Verdict.NOT_RUN: "NOT RUN"}


@dataclass(frozen=True)
class TopicClaim:
    """One bar of a topic. ``kind``: ``claim``, ``milestone`` (on its reference task) or ``floor`` (of the stand-in for one)."""

    check: str
    kind: str
    judgement: Judgement

    @property
    def metric(self) -> str:
        return f"{self.judgement.bar.asset}.{self.judgement.bar.metric}"

    @property
    def value(self) -> str:
        found = self.judgement
        text = "-" if found.value is None else f"{found.value:.4g}"
        return text if found.low is None or found.high is None else f"{text} [{found.low:.4g}, {found.high:.4g}]"

    @property
    def bar(self) -> str:
        return self.judgement.bar.text() + (", floor" if self.kind == "floor" else "")

    @property
    def verdict(self) -> str:
        """The gate's verdict in a word. A floor that holds says so and no more: a stand-in never passes a milestone."""
        found = self.judgement.verdict
        if found is Verdict.PASSED and self.kind == "floor":
            return FLOOR_HELD
        return "NOT RUN" if found is Verdict.MISSING and not self.judgement.made else _WORDS[found]


@dataclass(frozen=True)
class TopicRow:
    """A topic with its claims, in the order of the syllabus."""

    part: Part
    topic: Topic
    claims: Sequence[TopicClaim]

    @property
    def verdict(self) -> str:
        """The worst of its claims: a topic has passed only where each of them has."""
        found = {claim.verdict for claim in self.claims}
        return next((word for word in ("FAILED", "MISSING", "NOT RUN", FLOOR_HELD, "PASSED") if word in found), NO_CLAIM)


def topic_rows(syllabus: Syllabus, profile: Any, held: Mapping[str, Judgement], part: str = "") -> list[TopicRow]:
    """Every topic of a part (of all parts, if none is named) with the bars on it; ``held`` are the judgements in force by check name.

    A milestone whose reference task the profile does not run is there too, as not run, beside the floors of its stand-in.

    Raises:
        UserError: no such part, or a floor of the profile names an unknown milestone or topic.
    """
    parts = [one for one in syllabus.parts if part in ("", one.id)]
    if not parts:
        raise UserError(f"unknown part '{part}': choose one of {', '.join(one.id for one in syllabus.parts)}")
    found: dict[str, list[TopicClaim]] = {topic: [] for topic in syllabus.topics()}
    for check, judgement in [*held.items(), *_references_not_run(syllabus, profile)]:
        for topic in _topics_of(judgement.bar, syllabus):
            found[topic].append(TopicClaim(check, check.partition("_")[0], judgement))
    return [TopicRow(one, topic, found[topic.id]) for one in parts for topic in one.topics]


def _references_not_run(syllabus: Syllabus, profile: Any) -> list[tuple[str, Judgement]]:
    rows = []
    for milestone in syllabus.roadmap:
        if not is_reference(milestone, profile):
            for bar in milestone.bars:
                reason = f"profile {profile.name} does not run the reference task: {milestone.reference}"
                placed = bar.model_copy(update={"milestone": milestone.milestone})
                rows.append((f"milestone_{milestone.milestone}_{check_suffix(bar)}", Judgement(placed, None, Verdict.NOT_RUN, reason, made=False)))
    return rows


def _topics_of(bar: Bar, syllabus: Syllabus) -> list[str]:
    """The topic a bar names, else the topics of the milestone it names; a floor may name neither."""
    topics, milestones = syllabus.topics(), {milestone.milestone: milestone.topics for milestone in syllabus.roadmap}
    if (bar.topic and bar.topic not in topics) or (bar.milestone and bar.milestone not in milestones):
        raise UserError(f"the floor on {bar.asset}.{bar.metric} names a topic or milestone that the syllabus does not have; correct its name")
    return [bar.topic] if bar.topic else milestones.get(bar.milestone, [])


def by_part(rows: Sequence[TopicRow]) -> list[tuple[Part, list[TopicRow]]]:
    """The rows in groups, a part each, in their order."""
    parts = {row.part.id: row.part for row in rows}
    return [(part, [row for row in rows if row.part.id == name]) for name, part in parts.items()]


def tally(rows: Sequence[TopicRow]) -> str:
    """How many topics there are of each verdict, in a sentence."""
    counts = Counter(row.verdict for row in rows)
    said = (f"{counts[word]} {word}" for word in ("PASSED", FLOOR_HELD, "FAILED", "MISSING", "NOT RUN", NO_CLAIM) if counts[word])
    return f"{len(rows)} topics: {', '.join(said)}"


def as_markdown(rows: Sequence[TopicRow], measured: str) -> str:
    """The table as a Markdown page: a section a part, a line a claim. ``measured`` says of which run the values are."""
    lines = ["# The topics, their claims and what was measured", "", measured, "", f"{tally(rows)}."]
    for part, group in by_part(rows):
        head = ["| topic | claim | value | bar | against | verdict |", "|---|---|---|---|---|---|"]
        lines += ["", f"## {part.title}", "", f"{tally(group)}.", "", *head]
        for row in group:
            lines.append(f"| **{row.topic.title}** | | | | | {row.verdict} |")
            lines += [f"| | `{c.metric}` | {c.value} | {c.bar} | {c.judgement.bar.against} | {c.verdict} |" for c in row.claims]
    return "\n".join(lines) + "\n"


def as_records(rows: Sequence[TopicRow]) -> list[dict[str, Any]]:
    """The table as JSON-able data: a record a topic, with its claims."""
    return [
        {
            "part": row.part.id, "topic": row.topic.id, "title": row.topic.title, "shows": row.topic.shows, "verdict": row.verdict,
            "claims": [
                {
                    "check": claim.check, "kind": claim.kind, "asset": claim.judgement.bar.asset, "metric": claim.judgement.bar.metric,
                    "value": claim.judgement.value, "low": claim.judgement.low, "high": claim.judgement.high,
                    "bar": claim.judgement.bar.text(), "against": claim.judgement.bar.against,
                    "verdict": claim.verdict, "reason": claim.judgement.reason,
                }
                for claim in row.claims
            ],
        }
        for row in rows
    ]  # fmt: skip
