"""The table of races holds what was recorded, and says where an aim was missed."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.record import FIGURES, PAGE, RESULTS, Figure, page


def test_the_page_is_the_recorded_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/benchmarks.md drifted: run `python benchmarks/record.py`"
    assert {file.stem for file in RESULTS.glob("*.json")} <= set(FIGURES)
    assert all((PAGE.parents[1] / "benchmarks" / f"{name}.py").exists() for name in FIGURES)


def test_a_missed_aim_is_named_and_a_figure_that_was_not_measured_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "decode.json").write_text(json.dumps({"command": "benchmarks/decode.py", "found": {"hardware": "a machine", "threads": 1, "ratio": 0.7}}))
    assert "| time a token over transformers' generate | 0.7 | <= 0.5 | **missed** |" in page(tmp_path)
    assert Figure("speed", "a.b", least=1.5).row({"a": {"b": 2.0}}) == "| speed | 2 | >= 1.5 | met |"
    assert Figure("speed", "a.b").row({"a": {}}) is None
