"""The table of races holds what was recorded, and says where an aim was missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import plan
from benchmarks.record import FIGURES, PAGE, RESULTS, Figure, page, placeless, printed
from curriculum.vector_search.settings import VectorSearchSettings


def test_the_page_is_the_recorded_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/benchmarks.md drifted: run `python -m benchmarks.record`"
    assert {file.stem for file in RESULTS.glob("*.json")} <= set(FIGURES)
    assert all((PAGE.parents[1] / "benchmarks" / f"{name}.py").exists() for name in FIGURES)


def test_the_plan_on_paper_is_the_recorded_races_multiplied(tmp_path: Path) -> None:
    assert plan.PAGE.read_text(encoding="utf-8") == plan.page(), "docs/scale.md drifted: run `python -m benchmarks.plan`"
    per = plan.measured()
    small, large = (dict(plan.plan(size, per, VectorSearchSettings())) for size in (10**6, 10**9))
    days = float(small["encoding, 130 tokens a passage"].split()[0])
    assert abs(days - 10**6 * 130 / per["tokens_per_core_s"] / 86_400) < 0.01 * days
    on_cluster = float(large["the same by a Ray cluster of 64 workers, a core each"].split()[0].replace(",", ""))
    kept = json.loads((RESULTS / "cluster.json").read_text(encoding="utf-8"))["found"]["speed_over_one_process"]
    assert abs(on_cluster - 1000 * days / (32 * kept)) < 0.02 * on_cluster
    assert "hnsw" in small.values() and "ivf_pq_rescored" in large.values()


def test_the_plan_takes_the_largest_run_without_an_encoder_and_the_processors_seconds(tmp_path: Path) -> None:
    for file in RESULTS.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"))

    def run(documents: int, encoder: str, cpu: float) -> dict[str, object]:
        stages = {stage: {"seconds": 9.0, "cpu_seconds": cpu} for stage in ("documents", "passages", "index")}
        return {"documents": documents, "encoder": encoder, "first": {**stages, "disk_mib": {"bm25": 1.0}, "counts": {"passages": 60 * documents}}}

    runs = [run(10, "words", 7.0), run(100, "words", 4.0), run(10, "packaged:minilm", 1.0)]
    (tmp_path / "ingest.json").write_text(json.dumps({"command": "", "found": {"runs": runs}}))
    per = plan.measured(tmp_path)
    assert per["measured_passages"] == 6000 and per["index_s_per_passage"] == pytest.approx(4.0 * 90 / 60 / 6000)
    assert per["parse_s_per_passage"] == pytest.approx(2 * per["index_s_per_passage"])


def test_a_missed_aim_is_named_and_a_figure_that_was_not_measured_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "decode.json").write_text(json.dumps({"command": "benchmarks/decode.py", "found": {"hardware": "a machine", "threads": 1, "ratio": 0.7}}))
    assert "| time a token over transformers' generate | 0.7 | <= 0.5 | **missed** |" in page(tmp_path)
    assert Figure("speed", "a.b", least=1.5).row({"a": {"b": 2.0}}) == "| speed | 2 | >= 1.5 | met |"
    assert Figure("speed", "a.b").row({"a": {}}) is None


def test_what_libraries_print_is_not_the_result() -> None:
    assert json.loads(printed("{'train_loss': 1.0}\n{\n \"ratio\": 2\n}\n")) == {"ratio": 2}
    with pytest.raises(SystemExit, match="printed no result"):
        printed("Traceback")


def test_where_a_folder_lies_is_not_recorded() -> None:
    arguments = ["--bipia", "path:/home/me/data/bipia/", "/var/beir/scifact", "path:data/bipia", "http://127.0.0.1:8099", "20"]
    assert list(map(placeless, arguments)) == ["--bipia", "path:bipia", "scifact", "path:data/bipia", "http://127.0.0.1:8099", "20"]


def test_a_share_is_shown_with_its_interval_and_its_cases(tmp_path: Path) -> None:
    found = {"hardware": "a machine", "email": {"cases": 20, "served": {"changed": {"share": 0.25, "low": 0.0866, "high": 0.491, "of": 20}}}}
    found["email"]["served_less_plain"] = {"changed": {"difference": -0.1, "low": -0.3, "high": 0.1, "of": 20}}
    (tmp_path / "injection.json").write_text(json.dumps({"command": "-m benchmarks.injection", "found": found}))
    shown = page(tmp_path)
    assert "| email: cases | 20 |  |  |" in shown and "0.25 [0.0866, 0.491] of 20 |" in shown and "-0.1 [-0.3, 0.1] of 20 |" in shown
    assert "reader" not in shown and "shipped" not in shown  # what was not measured has no line
