"""The README says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curriculum.errors import UserError
from curriculum.profile import load_profile
from curriculum.report.readme import BEGIN, END, refreshed, render, topics_page
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
    assert topics_page(data, syllabus, profile) == page, "docs/topics.md drifted from results/starter.json: run `make readme`"
    assert all(f"| **{topic.title}** |" in page for topic in syllabus.topics().values())
    check, (verdict, _) = next((name, kept) for name, kept in data["checks"].items() if kept[0] == "passed" and name.startswith("claim_"))
    data["checks"][check] = ["failed", 987654.0]
    assert "9.877e+05" in topics_page(data, syllabus, profile) and verdict == "passed"


def test_a_changed_result_changes_the_readme() -> None:
    data = json.loads((ROOT / "results" / "starter.json").read_text())
    page = f"top\n{BEGIN}\n{render(data)}\n{END}\nbottom"
    assert refreshed(page, data) == page
    data["milestones"][0][2] = "another value"
    assert "another value" in refreshed(page, data)


def test_lost_markers_are_an_error() -> None:
    with pytest.raises(UserError, match="lost its markers"):
        refreshed("no figures here", {})
