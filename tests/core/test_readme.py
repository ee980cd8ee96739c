"""The README says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curriculum.errors import UserError
from curriculum.evaluation.gate import Judgement, judge, milestone_rows
from curriculum.profile import load_profile
from curriculum.report.card import judgements
from curriculum.report.readme import BEGIN, END, record, recorded_topics, refreshed, render, topics_page
from curriculum.results import Metric, RunRecord, StudyResult
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus

ROOT = Path(__file__).parents[2]


def test_the_readmes_figures_are_the_recorded_ones() -> None:
    data = json.loads((ROOT / "results" / "starter.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert refreshed(readme, data) == readme, "the README drifted from results/starter.json: run `make readme`"
    assert render(data).count("\n") >= 8


def test_the_topic_table_holds_the_recorded_values() -> None:
    data = json.loads((ROOT / "results" / "starter.json").read_text())
    page, syllabus, profile = (ROOT / "docs" / "topics.md").read_text(), load_syllabus(), load_profile("starter")
    assert topics_page(data, recorded_topics(data, syllabus, profile)) == page, "docs/topics.md drifted from results/starter.json: run `make readme`"
    assert all(f"| **{topic.title}** |" in page for topic in syllabus.topics().values())
    check, (verdict, _) = next((name, kept) for name, kept in data["checks"].items() if kept[0] == "passed" and name.startswith("claim_"))
    data["checks"][check] = ["failed", 987654.0]
    assert "9.877e+05" in topics_page(data, recorded_topics(data, syllabus, profile)) and verdict == "passed"


def test_a_changed_result_changes_the_readme() -> None:
    data = json.loads((ROOT / "results" / "starter.json").read_text())
    page = f"top\n{BEGIN}\n{render(data)}\n{END}\nbottom"
    assert refreshed(page, data) == page
    data["milestones"][0][2] = "another value"
    assert "another value" in refreshed(page, data)


def test_lost_markers_are_an_error() -> None:
    with pytest.raises(UserError, match="lost its markers"):
        refreshed("no figures here", {})


def made(asset: str, value: float, hardware: str, on: str) -> dict[str, StudyResult]:
    run = RunRecord(
        profile="starter", code_version="c", hardware=hardware, threads=2, wall_seconds=1, cpu_seconds=1, peak_memory_bytes=2**30, started_at=on
    )
    return {asset: StudyResult(study=asset, metrics=[Metric(name="worst", value=value)], run=run)}


def held(store: ArtifactStore) -> dict[str, Judgement]:
    return judgements(load_syllabus(), load_profile("starter"), store)


def test_what_was_measured_elsewhere_stays_in_the_record(tmp_path: Path) -> None:
    profile, store = load_profile("starter"), ArtifactStore(str(tmp_path))
    rows = milestone_rows(load_syllabus(), profile, store)
    first = record(profile, rows, held(store), made("long_context_study", 1.0, "one machine", "2026-01-01T10:00"))
    name = next(name for name, j in held(store).items() if j.bar.asset == "long_context_study")
    first["checks"][name], first["milestones"][0][2] = ["passed", 0.0], "a value"
    both = record(profile, rows, held(store), made("alignment_study", 2.0, "another", "2026-02-02T10:00"), first)
    assert set(both["figures"]) == set(both["measured"]) == {"long_context_study", "alignment_study"}
    assert both["measured"]["long_context_study"] == {"hardware": "one machine", "threads": 2, "on": "2026-01-01", "minutes": 0.0}
    assert both["checks"][name] == ["passed", 0.0] and both["milestones"][0][2] == "a value"
    assert "on another and one machine, 2 threads" in render(both)
    again = record(profile, rows, held(store), made("long_context_study", 3.0, "another", "2026-03-03T10:00"), both)
    assert again["figures"]["long_context_study"][0][1] == "3" and again["measured"]["long_context_study"]["on"] == "2026-03-03"


def test_a_kept_value_is_held_against_the_present_bar(tmp_path: Path) -> None:
    profile, store = load_profile("starter"), ArtifactStore(str(tmp_path))
    rows, judged = milestone_rows(load_syllabus(), profile, store), held(store)
    name = "claim_alignment_study_preference_gain_low__dpo"
    kept = record(profile, rows, judged, {})
    kept["checks"][name] = ["passed", 0.0]  # as it was while the bar was at 0
    assert record(profile, rows, judged, {}, kept)["checks"][name] == ["failed", 0.0]


def test_a_value_made_here_replaces_the_kept_one(tmp_path: Path) -> None:
    profile, store = load_profile("starter"), ArtifactStore(str(tmp_path))
    rows = milestone_rows(load_syllabus(), profile, store)
    name, judged = next((name, j) for name, j in held(store).items() if not j.made)
    kept = record(profile, rows, held(store), {})
    kept["checks"][name] = ["passed", 1.0]
    now = {name: judge(judged.bar, None)}  # made, and without the metric
    assert record(profile, rows, now, {}, kept)["checks"] == {name: ["missing", None]}
