"""The gate: what passes a bar, and what an exit code means."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.errors import UserError
from curriculum.evaluation.gate import Verdict, active_bars, exit_code, judge, judge_stored, judge_value, milestone_rows, of_made
from curriculum.profile import load_profile
from curriculum.results import Metric, StudyResult
from curriculum.storage import ArtifactStore, Manifest
from curriculum.syllabus import Bar, load_syllabus

BAR = Bar(asset="qa_report", metric="f1", min=0.8)
JUDGED = Bar(asset="rag_report", metric="groundedness", min=0.6, judged_by=Bar(asset="verifier_calibration", metric="auc", min=0.6))


def _put(store: ArtifactStore, asset: str, **metrics: float) -> None:
    with store.staging(asset) as staged:
        StudyResult(study=asset, metrics=[Metric(name=name, value=value) for name, value in metrics.items()]).save(staged)
        store.publish(staged, Manifest(asset=asset, version="v", key="v", kind="result"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_fails(value: float) -> None:
    assert judge(BAR, value).verdict is Verdict.FAILED
    assert judge(Bar(asset="a", metric="m", max=1.0), value).verdict is Verdict.FAILED


@pytest.mark.parametrize("value", [None, "0.9", True])
def test_a_value_that_is_not_there_is_missing(value: object) -> None:
    assert judge(BAR, value).verdict is Verdict.MISSING


def test_a_missing_metric_is_missing_and_a_nan_metric_fails() -> None:
    result = StudyResult(study="qa", metrics=[Metric(name="exact_match", value=0.9)])
    assert judge_value(BAR, result).verdict is Verdict.MISSING
    result = StudyResult(study="qa", metrics=[Metric(name="f1", value=math.nan)])
    assert judge_value(BAR, result).verdict is Verdict.FAILED


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_a_finite_value_passes_exactly_inside_the_bounds(value: float, low: float, width: float) -> None:
    bar = Bar(asset="a", metric="m", min=low, max=low + width)
    assert (judge(bar, value).verdict is Verdict.PASSED) == (low <= value <= low + width)


def test_exit_codes_tell_regression_from_a_broken_run() -> None:
    good, bad, none = judge(BAR, 0.9), judge(BAR, 0.1), judge(BAR, None)
    warned = judge(BAR.model_copy(update={"blocking": False}), 0.1)
    assert exit_code([good, warned]) == 0
    assert exit_code([good, bad, none]) == 1
    assert exit_code([good, none]) == 2
    assert exit_code([good], run_succeeded=False) == 2


def test_a_stand_in_never_passes_a_milestone(tmp_path: Path) -> None:
    syllabus, profile = load_syllabus(), load_profile("starter")
    stand_ins = {m for m, source in profile.milestones.items() if source.kind == "stand-in"}
    assert "reader" in stand_ins and "rag" in stand_ins
    store = ArtifactStore(str(tmp_path))
    _put(store, "qa_report", f1=0.99)
    row = next(r for r in milestone_rows(syllabus, profile, store) if r.title == "Reader")
    assert row.reference == "not run" and row.passed
    assert not [n for n in active_bars(syllabus, profile) if n.startswith("milestone_reader")]


@pytest.mark.parametrize("name", ["starter", "workstation", "cluster"])
def test_no_bar_hides_another(name: str) -> None:
    syllabus, profile = load_syllabus(), load_profile(name)
    reference = [bar for m in syllabus.roadmap if profile.milestones[m.milestone].kind == "reference" for bar in m.bars]
    assert len(active_bars(syllabus, profile)) == len(syllabus.claims) + len(reference) + len(profile.floors)


def test_two_bars_on_one_metric_are_refused() -> None:
    floors = [{"asset": "qa_report", "metric": "f1", "min": 0.1}, {"asset": "qa_report", "metric": "f1", "max": 0.9}]
    with pytest.raises(UserError, match="two bars share the name floor_qa_report_f1"):
        active_bars(load_syllabus(), load_profile("starter", {"floors": floors}))


def test_a_profile_on_the_reference_task_is_held_to_the_milestone(tmp_path: Path) -> None:
    syllabus = load_syllabus()
    profile = load_profile("starter", {"milestones": {"reader": {"kind": "reference", "measured_on": "SQuAD v1"}}})
    assert active_bars(syllabus, profile)["milestone_reader_qa_report_f1"].min == 0.8
    row = next(r for r in milestone_rows(syllabus, profile, ArtifactStore(str(tmp_path))) if r.title == "Reader")
    assert row.reference == "not run"


def test_a_judge_that_agrees_lets_its_bar_pass_and_block(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    _put(store, "verifier_calibration", auc=0.7)
    _put(store, "rag_report", groundedness=0.9)
    assert judge_stored(JUDGED, store).verdict is Verdict.PASSED
    assert judge_stored(JUDGED.model_copy(update={"min": 0.95}), store).bar.blocking


@pytest.mark.parametrize("agreement", [{}, {"auc": 0.5}, {"auc": math.nan}])
def test_a_judge_that_is_not_trusted_lets_its_bar_neither_pass_nor_block(tmp_path: Path, agreement: dict[str, float]) -> None:
    store = ArtifactStore(str(tmp_path))
    if agreement:
        _put(store, "verifier_calibration", **agreement)
    assert judge_stored(JUDGED, store).bar.blocking  # a report that was never made is a broken run, whoever judges it
    _put(store, "rag_report", groundedness=0.9)
    found = judge_stored(JUDGED, store)
    assert found.verdict is Verdict.FAILED and not found.bar.blocking and "not to be trusted" in found.reason
    assert exit_code([found]) == 0


def test_a_deep_study_holds_nothing_up_before_its_first_run_and_is_held_after_it(tmp_path: Path) -> None:
    store, deep = ArtifactStore(str(tmp_path)), Bar(asset="ablations", metric="gain", min=0.0, deep=True)
    waiting = judge_stored(deep, store)
    assert waiting.verdict is Verdict.NOT_RUN and exit_code([waiting]) == 0
    _put(store, "ablations", gain=-0.5)
    assert judge_stored(deep, store).verdict is Verdict.FAILED and exit_code([judge_stored(deep, store)]) == 1
    other = judge_stored(deep.model_copy(update={"metric": "other"}), store)
    assert other.verdict is Verdict.MISSING and exit_code([other]) == 2


def test_a_run_of_a_part_is_not_told_what_it_was_never_to_make(tmp_path: Path) -> None:
    store, syllabus, profile = ArtifactStore(str(tmp_path)), load_syllabus(), load_profile("starter")
    held = {name: judge_stored(bar, store) for name, bar in active_bars(syllabus, profile).items()}
    rows = milestone_rows(syllabus, profile, store)
    assert exit_code(list(held.values())) == 2 and of_made(store, rows, held, []) == ([], {}, [])
    _put(store, "qa_report", f1=0.01)
    held["floor_qa_report_f1"] = judge_stored(active_bars(syllabus, profile)["floor_qa_report_f1"], store)
    rows, made, _ = of_made(store, milestone_rows(syllabus, profile, store), held, [])
    assert [row.title for row in rows] == ["Reader"] and list(made) == ["floor_qa_report_f1"] and exit_code(list(made.values())) == 1


def test_a_bar_on_a_row_that_was_never_made_waits_and_one_on_a_row_without_the_metric_does_not(tmp_path: Path) -> None:
    from curriculum.rows.comparison import comparison

    store = ArtifactStore(str(tmp_path))
    row = StudyResult(study="row/a", metrics=[Metric(name="gain", value=1.0)])
    with store.staging("table") as staged:
        comparison("table", {"a": row, "b": None}, by="gain").save(staged)
        store.publish(staged, Manifest(asset="table", version="v", key="v", kind="result"))
    verdicts = {
        metric: judge_stored(Bar(asset="table", metric=metric, min=0.0, deep=True), store).verdict for metric in ("gain__a", "gain__b", "loss__a")
    }  # fmt: skip
    assert verdicts == {"gain__a": Verdict.PASSED, "gain__b": Verdict.NOT_RUN, "loss__a": Verdict.MISSING}
