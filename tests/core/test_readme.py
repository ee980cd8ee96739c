"""The README says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curriculum.errors import UserError
from curriculum.report.readme import BEGIN, END, refreshed, render

ROOT = Path(__file__).parents[2]


def test_the_readmes_figures_are_the_recorded_ones() -> None:
    data = json.loads((ROOT / "results" / "starter.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert refreshed(readme, data) == readme, "the README drifted from results/starter.json: run `make readme`"
    assert render(data).count("\n") >= 8


def test_a_changed_result_changes_the_readme() -> None:
    data = json.loads((ROOT / "results" / "starter.json").read_text())
    page = f"top\n{BEGIN}\n{render(data)}\n{END}\nbottom"
    assert refreshed(page, data) == page
    data["milestones"][0][2] = "another value"
    assert "another value" in refreshed(page, data)


def test_lost_markers_are_an_error() -> None:
    with pytest.raises(UserError, match="lost its markers"):
        refreshed("no figures here", {})
