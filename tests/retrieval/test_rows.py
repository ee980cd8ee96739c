"""Rows of the search tables: the numbers of the report, compared over the examples that they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from curriculum.results import Metric, StudyResult
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import HybridRetriever
from curriculum.retrieval.measure import SYSTEMS
from curriculum.rows.comparison import best_row, comparison
from curriculum.rows.search import embedding_row, fusion_row, leg_hits, track_row
from curriculum.rows.settings import EmbeddingModel, RowSettings
from curriculum.sources import model_folder
from tests.retrieval.small import Searchable


@pytest.fixture(scope="module")
def retriever(searchable: Searchable, minilm: Encoder) -> HybridRetriever:
    return HybridRetriever(searchable.bm25, searchable.dense, minilm, depth=searchable.settings.depth)


def test_the_fusion_rows_and_the_track_row_are_the_numbers_of_the_report(
    searchable: Searchable, retriever: HybridRetriever, healthy: StudyResult
) -> None:
    said = {"seed": 0, "identities": [], "progress": lambda line: None}
    hits = leg_hits(retriever, searchable.tracks, searchable.settings.depth, lambda line: None)
    rows = {s: fusion_row(s, hits, searchable.tracks, searchable.settings, seed=0, identities=[]) for s in SYSTEMS}
    table = comparison("fusion_table", {**rows, "absent": None}, by="ndcg_at_10")
    for system in SYSTEMS:
        for measure in ("ndcg_at_10", "mrr", "recall_at_100"):
            assert table.value(f"{measure}__{system}") == pytest.approx(healthy.value(f"{measure}__{system}__notes"), abs=1e-9), system
    pairs, best = table.tables["paired"], best_row(rows, "ndcg_at_10")
    assert set(pairs["row"]) == set(SYSTEMS) - {best} and set(pairs["track"]) == {"notes"}
    lines = table.tables["rows"].set_index("row")["state"]
    assert lines["absent"] == "not run" and lines["rrf"] == "measured" and table.value("rows_not_run") == 1
    track = track_row("notes", retriever, searchable.passages, searchable.tracks, searchable.settings, **said)
    assert track.value("ndcg_at_10") == healthy.value("ndcg_at_10") and track.value("bm25_ndcg_at_10") == table.value("ndcg_at_10__bm25")


def test_an_embedding_model_finds_more_than_one_of_random_weights(searchable: Searchable, encoder_folder: Path, tmp_path: Path) -> None:
    rows = RowSettings(
        embedding_models={"minilm": EmbeddingModel(source="packaged:minilm"), "random": EmbeddingModel(source=f"path:{encoder_folder}")},
        embedding_passages=60, embedding_queries=12,
    )  # fmt: skip
    folders = {"minilm": model_folder("packaged:minilm", tmp_path), "random": encoder_folder}
    found = {
        name: embedding_row(
            name, folder, searchable.passages, searchable.tracks, searchable.settings, rows, seed=0, device="cpu", identities=[],
            checkpoints=tmp_path / name, progress=lambda line: None,
        )
        for name, folder in folders.items()
        if (tmp_path / name).mkdir() is None
    }  # fmt: skip
    table = comparison("embedding_model_table", found, by="ndcg_at_10")
    assert table.value("ndcg_at_10__minilm") > 0.3 + table.value("ndcg_at_10__random")
    (pair,) = table.tables["paired"].itertuples()
    assert (pair.row, pair.best) == ("random", "minilm") and pair.high < 0


def test_a_row_without_the_metric_is_not_the_best_and_lower_can_be_better() -> None:
    def row(**values: float) -> StudyResult:
        return StudyResult(study="row", metrics=[Metric(name=name, value=value, higher_is_better=False) for name, value in values.items()])

    assert best_row({"a": row(loss=2.0), "b": row(loss=1.0), "c": row(other=0.0), "d": row(loss=float("nan"))}, "loss") == "b"
    assert best_row({"c": row(other=0.0)}, "loss") is None
