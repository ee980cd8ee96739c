"""The page of a profile's figures: what it holds, and that it is what was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curriculum.profile import load_profile
from curriculum.report.figures import OTHER, figures_page, part_of, part_pages
from curriculum.report.readme import README_PROFILE, every_figure, headline, recorded_topics
from curriculum.results import Metric, StudyResult
from curriculum.syllabus import load_syllabus

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted(path for path in (ROOT / "results").glob("*.json") if path.stem != README_PROFILE)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_page_of_a_profile_holds_what_was_recorded(path: Path) -> None:
    page = figures_page(json.loads(path.read_text(encoding="utf-8")), load_profile(path.stem).description)
    assert (ROOT / "docs" / f"{path.stem}.md").read_text(encoding="utf-8") == page, f"run `curriculum readme --profile {path.stem}`"


def test_the_pages_of_the_parts_hold_every_figure_that_was_recorded() -> None:
    data = json.loads((ROOT / "results" / f"{README_PROFILE}.json").read_text(encoding="utf-8"))
    pages = part_pages(data, recorded_topics(data, load_syllabus(), load_profile(README_PROFILE)))
    kept = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "figures").glob("*.md")}
    assert kept == pages, "docs/figures/ drifted from results/starter.json: run `make readme`"
    assert sorted(line[3:] for page in pages.values() for line in page.splitlines() if line.startswith("## ")) == sorted(data["figures"])


def test_a_study_stands_in_the_part_that_most_of_its_bars_are_of() -> None:
    rows = recorded_topics({"checks": {}}, load_syllabus(), load_profile(README_PROFILE))
    expected = {
        "attention_study": "foundations", "peft_table": "finetuning", "qa_report": "finetuning", "embedder_report": "embeddings",
        "late_interaction_study": "search", "reranker_report": "search", "verifier_calibration": "analysis", "no_such_study": OTHER,
    }  # fmt: skip
    assert {name: part_of(name, rows) for name in expected} == expected


def test_main_figures_are_those_of_no_row() -> None:
    assert headline({"a": [["f1", "0.5", 3], ["f1__bm25", "0.25", 3]]}) == {"a": [["f1", "0.5", 3]]}


def test_systems_are_rows_and_measures_columns() -> None:
    metrics = [
        Metric(name="ndcg_at_10", value=0.5, low=0.4, high=0.6, n=7), Metric(name="mrr__bm25__notes", value=0.25),
        Metric(name="ndcg_at_10__bm25__notes", value=0.75), Metric(name="mrr__dense__notes", value=1.0),
    ]  # fmt: skip
    figures = {"some_study": every_figure(StudyResult(study="some_study", metrics=metrics)), "other_study": [["f1", "0.5", None]]}
    measured = {"some_study": {"hardware": "a machine", "threads": 2, "on": "2026-01-01", "minutes": 1.5}}
    data = {"profile": "mine", "checks": {"a": ["passed", 1.0], "b": ["failed", 0.0], "c": ["not run", None], "d": ["missing", None]}, "figures": figures, "measured": measured, "remarks": {"some_study": ["One.\nStill one.", "Two."], "other_study": []}}
    page = figures_page(data, "Mine.").splitlines()
    assert page[2].startswith("Mine. Measured on a machine; 1 of 2 checks passed.")
    assert page.index("## other_study") < page.index("## some_study") and "| f1 | 0.5 |  |" in page
    assert page[page.index("## some_study") + 2] == "Measured on 2026-01-01, in 1.5 minutes."
    assert page[page.index("## some_study") + 4 :][:2] == ["- One. Still one.", "- Two."] and page.count("- Two.") == 1
    assert "| ndcg_at_10 | 0.5 [0.4, 0.6] | 7 |" in page
    head = page.index("| | mrr | ndcg_at_10 |")
    assert page[head + 1 : head + 4] == ["|---|---|---|", "| bm25, notes | 0.25 | 0.75 |", "| dense, notes | 1 |  |"]
