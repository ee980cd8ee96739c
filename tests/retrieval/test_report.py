"""The report on the packaged notes: right when all is well, red when a leg is broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.results import Metric, StudyResult
from curriculum.retrieval.bm25 import build_bm25
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import LEGS, HybridRetriever
from curriculum.retrieval.measure import FUSIONS, SYSTEMS, Searched, choose_fusion, dense_weight, missing_legs, per_query, shortfall
from curriculum.retrieval.report import hybrid_report
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.syllabus import Bar, load_syllabus
from tests.retrieval.small import Searchable

DENSE_FLOOR = Bar(asset="hybrid_search_report", metric="ndcg_at_10__dense__notes", min=0.40)
HYBRID_FLOOR = Bar(asset="hybrid_search_report", metric="ndcg_at_10", min=0.40)
NO_MISSING_LEG = Bar(asset="hybrid_search_report", metric="missing_legs", max=0)
NAMES = [f"{m}__{s}__notes" for m in ("ndcg_at_10", "recall_at_100", "mrr") for s in ("bm25", "dense", "rrf", "dbsf", "rsf", "weighted")]


def report(searchable: Searchable, encoder: Encoder, *, bm25: Path | None = None, dense: Path | None = None) -> StudyResult:
    retriever = HybridRetriever(bm25 or searchable.bm25, dense or searchable.dense, encoder)
    return hybrid_report(
        retriever, searchable.passages, searchable.tracks, searchable.settings, seed=0, identities=[], progress=lambda _: None
    )


def test_a_healthy_index_passes_and_every_system_is_reported(healthy: StudyResult) -> None:
    for bar in (DENSE_FLOOR, HYBRID_FLOOR, NO_MISSING_LEG):
        assert judge_value(bar, healthy).verdict is Verdict.PASSED
    assert all(0 < healthy.value(name) <= 1 for name in NAMES)
    assert healthy.value("mteb_difference") < 1e-4
    assert 0 < healthy.value("leg_overlap__notes") < 1
    assert all(healthy.value(f"latency_p95_ms__{s}") >= healthy.value(f"latency_p50_ms__{s}") > 0 for s in (*LEGS, "hybrid"))
    assert healthy.settings["fusion"] in FUSIONS and healthy.settings["dense_weight"] in [n / 10 for n in range(1, 10)]
    assert healthy.value("ndcg_at_10") == healthy.value(f"ndcg_at_10__{healthy.settings['fusion']}__notes")


def test_scores_are_kept_per_query_and_compared_pairwise(healthy: StudyResult, searchable: Searchable) -> None:
    scores, tests = healthy.per_example, searchable.tracks[searchable.tracks["split"] == "test"]
    assert set(scores["example_id"]) == set(tests["query_id"]) and scores["example_id"].is_unique
    paired = healthy.tables["paired"].set_index(["track", "fusion", "leg"])
    assert len(paired) == len(FUSIONS) * len(LEGS) and set(paired["questions"]) == {tests["group"].nunique()}
    row = paired.loc[("notes", "rrf", "dense")]
    gain = scores["ndcg_at_10__rrf"].mean() - scores["ndcg_at_10__dense"].mean()
    assert row["difference"] == pytest.approx(gain) and row["low"] <= gain <= row["high"]
    gained = healthy.metric("ndcg_over_dense__rrf__notes")
    assert (gained.value, gained.low, gained.high, gained.n) == (row["difference"], row["low"], row["high"], row["questions"])
    intervals = [healthy.metric(name) for name in NAMES]
    assert all(each.low is not None and each.high is not None and each.low <= each.value <= each.high for each in intervals)
    found = healthy.metric("ndcg_at_10")
    assert found is not None and found.low is not None and found.low <= found.value <= found.high
    assert len(healthy.tables["systems"]) == len(healthy.tables["dev"]) == len(SYSTEMS)
    assert healthy.plots["ndcg"].startswith(b"\x89PNG") and len(healthy.plots["ndcg"]) < 50_000


def test_shuffled_embeddings_are_red(healthy: StudyResult, searchable: Searchable, minilm: Encoder, tmp_path: Path) -> None:
    shuffled = shutil.copytree(searchable.dense, tmp_path / "dense")
    ids = json.loads((shuffled / "project" / "ids.json").read_text())
    (shuffled / "project" / "ids.json").write_text(json.dumps([ids[n] for n in np.random.default_rng(0).permutation(len(ids))]))
    broken = report(searchable, minilm, dense=shuffled)
    assert judge_value(DENSE_FLOOR, broken).verdict is Verdict.FAILED
    assert broken.value("ndcg_at_10__dense__notes") < 0.2 < healthy.value("ndcg_at_10__dense__notes")
    assert broken.value("ndcg_at_10__rrf__notes") < healthy.value("ndcg_at_10__rrf__notes") - 0.1


def test_a_missing_bm25_leg_is_red(searchable: Searchable, minilm: Encoder, tmp_path: Path) -> None:
    blank = searchable.passages.assign(title="", section="", text="")
    build_bm25(blank, searchable.settings, tmp_path)
    broken = report(searchable, minilm, bm25=tmp_path)
    assert broken.value("missing_legs") == 1 and judge_value(NO_MISSING_LEG, broken).verdict is Verdict.FAILED
    assert broken.value("ndcg_at_10__bm25__notes") == 0 and broken.value("leg_overlap__notes") == 0


def test_a_headline_track_that_is_not_there_is_named(searchable: Searchable, minilm: Encoder) -> None:
    settings = searchable.settings.model_copy(update={"headline_track": "note"})
    retriever = HybridRetriever(searchable.bm25, searchable.dense, minilm)
    with pytest.raises(DataError, match=r"'note'.*retrieval\.headline_track"):
        hybrid_report(retriever, searchable.passages, searchable.tracks, settings, seed=0, identities=[], progress=lambda _: None)


def one_query(split: str, bm25: dict[str, float], dense: dict[str, float]) -> Searched:
    queries = pd.DataFrame({"query_id": [f"{split}1"], "relevant_ids": [["right"]], "grades": [[2]], "split": [split]})
    return Searched("t", split, queries, {"bm25": {f"{split}1": bm25}, "dense": {f"{split}1": dense}})


def test_ndcg_is_computed_with_grades() -> None:
    queries = pd.DataFrame({"query_id": ["q1", "q2"], "relevant_ids": [["a", "b"], ["a"]], "grades": [[2, 1], [2]]})
    scores = per_query({"q1": {"b": 3.0, "x": 2.0, "a": 1.0}}, queries).set_index("example_id")
    log = np.log2
    assert scores.loc["q1", "ndcg_at_10"] == pytest.approx((1 / log(2) + 2 / log(4)) / (2 / log(2) + 1 / log(3)))
    assert scores.loc["q1", "mrr"] == 1 and scores.loc["q1", "recall_at_100"] == 1
    assert list(scores.loc["q2"]) == [0, 0, 0]  # a query without hits counts


@pytest.mark.parametrize(("weight", "verdict"), [(0.1, Verdict.PASSED), (0.9, Verdict.FAILED)])
def test_searching_by_another_fusion_than_the_best_on_dev_is_red(weight: float, verdict: Verdict) -> None:
    dev = one_query("dev", {"right": 1.0, "wrong": 0.2, "x": 0.0}, {"wrong": 1.0, "x": 0.9, "right": 0.0})
    dev.runs["weighted"] = {"dev1": {"right": 1.0, "wrong": 0.5}}
    lost = shortfall([dev], "weighted", RetrievalSettings(fusion="rsf", dense_weight=weight))
    (bar,) = (claim for claim in load_syllabus().claims if claim.metric == "fusion_shortfall")
    study = StudyResult(study="hybrid_search_report", metrics=[Metric(name="fusion_shortfall", value=lost)], settings={})
    assert judge_value(bar, study).verdict is verdict and shortfall([], "rrf", RetrievalSettings()) == 0


def test_weight_and_fusion_are_chosen_on_dev() -> None:
    wrong, right = {"wrong": 2.0, "right": 1.9, "x": 0.0}, {"right": 1.0, "wrong": 0.2, "x": 0.0}
    assert dense_weight([one_query("dev", right, {"wrong": 1.0, "x": 0.9, "right": 0.0})]) < 0.5
    assert dense_weight([one_query("dev", {"wrong": 1.0, "x": 0.9, "right": 0.0}, right)]) > 0.5
    assert dense_weight([]) == 0.5 and choose_fusion([]) == "rrf"
    dev = one_query("dev", wrong, right)
    for system in FUSIONS:
        dev.runs[system] = {"dev1": right if system == "dbsf" else wrong}
    assert choose_fusion([dev]) == "dbsf"


def test_a_leg_that_answers_some_queries_is_weak_and_one_that_answers_few_is_missing() -> None:
    hit, none = {"right": 1.0}, {}
    queries = pd.DataFrame({"query_id": [f"q{n}" for n in range(4)]})

    def searched(answered: int) -> Searched:
        lexical = {f"q{n}": hit if n < answered else none for n in range(4)}
        return Searched("t", "test", queries, {"bm25": lexical, "dense": dict.fromkeys(queries["query_id"], hit)})

    assert [missing_legs([searched(n)]) for n in (4, 2, 1, 0)] == [0, 0, 1, 1]
    assert missing_legs([searched(4), searched(0)]) == 1
