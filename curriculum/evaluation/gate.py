"""Bars held against results: the one place that decides what passes. Missing, NaN and infinite values fail."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from curriculum.artifacts import DirectoryArtifact
from curriculum.errors import UserError
from curriculum.evaluation.regression import Change
from curriculum.results import StudyResult
from curriculum.storage import ArtifactStore
from curriculum.syllabus import Bar, Milestone, Syllabus


class Verdict(StrEnum):
    """What a bar says of a result."""

    PASSED = "passed"
    FAILED = "failed"
    MISSING = "missing"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Judgement:
    """One bar, the value found, and the verdict with its reason. ``made``: False where the asset has no version at all."""

    bar: Bar
    value: float | None
    verdict: Verdict
    reason: str
    low: float | None = None
    high: float | None = None
    made: bool = True


def judge(bar: Bar, value: Any, low: float | None = None, high: float | None = None) -> Judgement:
    """Hold ``value`` against ``bar``: only a finite number inside the bounds passes."""
    name = f"{bar.asset}.{bar.metric}"
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return Judgement(bar, None, Verdict.MISSING, f"{name} is missing; the bar is {bar.text()}")
    number = float(value)
    if not math.isfinite(number):
        return Judgement(bar, number, Verdict.FAILED, f"{name} is {number}, which no bar accepts ({bar.text()})")
    passed = (bar.min is None or number >= bar.min) and (bar.max is None or number <= bar.max)
    relation = "meets" if passed else "misses"
    verdict = Verdict.PASSED if passed else Verdict.FAILED
    return Judgement(bar, number, verdict, f"{name} = {number:.6g} {relation} {bar.text()}", low, high)


def judge_value(bar: Bar, value: Any) -> Judgement:
    """Hold a stored value against ``bar``: a metric of a study, or a fact of a model or index."""
    if isinstance(value, StudyResult):
        metric = value.metric(bar.metric)
        return judge(bar, None) if metric is None else judge(bar, metric.value, metric.low, metric.high)
    if isinstance(value, DirectoryArtifact):
        return judge(bar, value.facts.get(bar.metric))
    return judge(bar, None)


def judge_stored(bar: Bar, store: ArtifactStore) -> Judgement:
    """Hold the latest version of the bar's asset in ``store`` against it; an asset never made is missing.

    Where a model judged the metric and its own agreement misses ``bar.judged_by``, the bar fails without blocking.
    """
    found = _judge_latest(bar, store)
    if bar.judged_by is None or found.verdict in {Verdict.MISSING, Verdict.NOT_RUN}:
        return found
    agreement = _judge_latest(bar.judged_by, store)
    if agreement.verdict is Verdict.PASSED:
        return found
    reason = f"{found.reason}, but its judge is not to be trusted: {agreement.reason}"
    return replace(found, bar=bar.model_copy(update={"blocking": False}), verdict=Verdict.FAILED, reason=reason)


def _judge_latest(bar: Bar, store: ArtifactStore) -> Judgement:
    manifest = store.manifest(bar.asset)
    if manifest is None:
        return replace(_not_run(bar) if bar.deep else judge(bar, None), made=False)
    if manifest.kind == "result":
        study = StudyResult.load(store.path(manifest))
        row = bar.metric.rpartition("__")[2]
        if row in study.settings.get("not_run", ()):
            return replace(_not_run(bar), reason=f"the row '{row}' of {bar.asset} has not run yet; the bar on {bar.metric} is {bar.text()}")
        return judge_value(bar, study)
    return judge(bar, manifest.facts.get(bar.metric))


def _not_run(bar: Bar) -> Judgement:
    reason = f"{bar.asset} is a deep study that has not run yet; the bar on {bar.metric} is {bar.text()}"
    return Judgement(bar, None, Verdict.NOT_RUN, reason)


def active_bars(syllabus: Syllabus, profile: Any) -> dict[str, Bar]:
    """Every bar in force under a profile, by check name.

    A milestone's own bars count only where the profile runs its reference task; elsewhere the profile's floors do, under
    another name: a stand-in never passes a milestone. Those of a user's corpus count where the profile names one.

    Raises:
        UserError: two bars of one kind are on the same metric of the same asset, so that one would hide the other.
    """
    named = [(f"claim_{check_suffix(claim)}", claim) for claim in syllabus.claims]
    for milestone in syllabus.roadmap:
        if is_reference(milestone, profile):
            bars = [bar.model_copy(update={"milestone": milestone.milestone}) for bar in milestone.bars]
            named += [(f"milestone_{milestone.milestone}_{check_suffix(bar)}", bar) for bar in bars]
    named += [(f"floor_{check_suffix(floor)}", floor) for floor in profile.floors]
    named += [(f"gate_{check_suffix(bar)}", bar) for bar in syllabus.own_corpus if profile.corpus.path]
    twice = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if twice:
        raise UserError(f"two bars share the name {twice[0]}; hold a metric of an asset with one bar that has both min and max")
    return dict(named)


def check_suffix(bar: Bar) -> str:
    """The asset and the metric as a check name may hold them: metrics of two assets may share a name."""
    return f"{bar.asset}_{bar.metric}".replace("@", "_at_").replace("-", "_")


def is_reference(milestone: Milestone, profile: Any) -> bool:
    """Whether the profile runs this milestone on its reference task."""
    source = profile.milestones.get(milestone.milestone)
    return source is not None and source.kind == "reference"


@dataclass(frozen=True)
class MilestoneRow:
    """One line of the closing table."""

    weeks: str
    title: str
    reference_task: str
    reference: str
    measured_on: str
    values: list[Judgement]

    @property
    def passed(self) -> bool:
        return bool(self.values) and all(j.verdict is Verdict.PASSED for j in self.values)


def milestone_rows(syllabus: Syllabus, profile: Any, store: ArtifactStore) -> list[MilestoneRow]:
    """For each milestone: its status on the reference task (met, not met, not run) and the stand-in's values and floors."""
    rows = []
    for milestone in syllabus.roadmap:
        if is_reference(milestone, profile):
            values = [judge_stored(bar, store) for bar in milestone.bars]
            met = all(j.verdict is Verdict.PASSED for j in values)
            status = "met" if met else "not run" if all(j.verdict is Verdict.MISSING for j in values) else "not met"
        else:
            values = [judge_stored(bar, store) for bar in profile.floors if bar.milestone == milestone.milestone]
            status = "not run"
        source = profile.milestones.get(milestone.milestone)
        measured_on = source.measured_on if source else ""
        rows.append(MilestoneRow(milestone.weeks, milestone.title, milestone.reference, status, measured_on, values))
    return rows


def of_made(
    store: ArtifactStore, rows: list[MilestoneRow], held: dict[str, Judgement], changes: list[Change]
) -> tuple[list[MilestoneRow], dict[str, Judgement], list[Change]]:
    """Of the milestones, judgements and changes those whose asset has a version: a run of a part says nothing of the others."""
    made = {name: j for name, j in held.items() if j.made}
    known = [c for c in changes if store.manifest(c.regression.asset) is not None]
    return [row for row in rows if any(j.made for j in row.values)], made, known


def exit_code(judgements: list[Judgement], run_succeeded: bool = True, changes: Iterable[Change] = ()) -> int:
    """1: a blocking bar failed, or a score regressed. 2: neither, but the run broke or left a bar without a value. 0: all is well."""
    blocking = [j.verdict for j in judgements if j.bar.blocking]
    if Verdict.FAILED in blocking or any(c.failed and c.regression.blocking for c in changes):
        return 1
    return 0 if run_succeeded and Verdict.MISSING not in blocking else 2
