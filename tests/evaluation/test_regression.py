"""Changes since the baseline: what counts as worse, what as doubt, and what is kept when a state is accepted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.errors import UserError
from curriculum.evaluation.baselines import Baselines, change_since
from curriculum.evaluation.gate import exit_code
from curriculum.evaluation.regression import Outcome, compare_scores
from curriculum.evaluation.states import States
from curriculum.results import Metric, StudyResult
from curriculum.storage import ArtifactStore, Manifest
from curriculum.syllabus import Regression, load_syllabus

F1 = Regression(asset="qa_report", score="f1", margin=0.05)


def table(scores: np.ndarray, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"example_id": [f"q{i}" for i in range(len(scores))], "f1": scores, **columns})


@pytest.fixture
def old() -> pd.DataFrame:
    return table(np.random.default_rng(0).uniform(size=200))


def outcome(new: pd.DataFrame | None, old: pd.DataFrame | None, regression: Regression = F1) -> Outcome:
    return compare_scores(regression, new, old).outcome


def test_the_same_scores_are_held_and_a_lower_level_is_a_regression(old: pd.DataFrame) -> None:
    assert outcome(old, old) is Outcome.HELD
    worse = compare_scores(F1, old.assign(f1=old["f1"] - 0.2), old)
    assert worse.outcome is Outcome.REGRESSED and worse.failed and worse.gain == pytest.approx(-0.2)
    assert outcome(old.assign(f1=old["f1"] + 0.2), old) is Outcome.HELD


def test_what_the_examples_cannot_tell_warns(old: pd.DataFrame) -> None:
    noise = np.random.default_rng(1).normal(0, 1.0, len(old))
    found = compare_scores(F1, old.assign(f1=old["f1"] + noise - noise.mean()), old)
    assert found.outcome is Outcome.INCONCLUSIVE and not found.failed
    assert found.detectable == pytest.approx(2.802 * noise.std(ddof=1) / 200**0.5, rel=1e-3)


def test_lower_is_better_turns_the_sign(old: pd.DataFrame) -> None:
    loss = Regression(asset="qa_report", score="f1", margin=0.05, higher_is_better=False)
    assert outcome(old.assign(f1=old["f1"] + 0.2), old, loss) is Outcome.REGRESSED
    assert outcome(old.assign(f1=old["f1"] - 0.2), old, loss) is Outcome.HELD


def test_a_deterministic_score_may_not_move_at_all(old: pd.DataFrame) -> None:
    exact = Regression(asset="qa_report", score="f1", margin=0.05, deterministic=True)
    moved = old.copy()
    moved.loc[3, "f1"] += 0.01
    assert outcome(moved, old, exact) is Outcome.CHANGED and outcome(moved, old) is Outcome.HELD
    assert outcome(old.assign(f1=old["f1"] + 5e-4), old, exact) is Outcome.HELD


def test_a_score_that_is_no_number_any_more_is_a_regression(old: pd.DataFrame) -> None:
    broken = old.copy()
    broken.loc[0, "f1"] = np.nan
    assert outcome(broken, old) is Outcome.REGRESSED
    assert outcome(broken, broken) is Outcome.HELD  # it never was one: the others are compared


def test_nothing_to_compare_with_warns_and_says_what_to_do(old: pd.DataFrame) -> None:
    assert "curriculum accept" in compare_scores(F1, old, None).reason
    assert outcome(None, old) is Outcome.MISSING
    assert outcome(old.drop(columns="f1"), old) is Outcome.MISSING
    assert outcome(old.assign(example_id=[f"other{i}" for i in range(200)]), old) is Outcome.INCOMPARABLE


def test_groups_are_what_is_resampled() -> None:
    rng = np.random.default_rng(2)
    scores = np.repeat(rng.uniform(size=20), 10)
    shifted = scores + np.repeat(rng.normal(0, 0.3, 20), 10)
    alone, grouped = (compare_scores(F1, new, table(scores)) for new in (table(shifted), table(shifted, group=np.repeat(np.arange(20), 10))))
    assert grouped.units == 20 and alone.units == 200
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)  # phrasings of one question are no independent observations


def test_rows_can_be_chosen(old: pd.DataFrame) -> None:
    mixed = old.assign(text=["domain", "general"] * 100)
    mixed.loc[mixed["text"] == "general", "f1"] -= 0.5
    chosen = Regression(asset="qa_report", score="f1", margin=0.05, only={"text": "domain"})
    before = old.assign(text=mixed["text"])
    assert outcome(mixed, before, chosen) is Outcome.HELD and chosen.name == "f1__domain"
    assert compare_scores(chosen, mixed, before).units == 100
    assert outcome(mixed, old, chosen) is Outcome.INCOMPARABLE  # a baseline that does not say which rows are which
    few = before.assign(text=["domain"] * 20 + ["general"] * 180)  # a tenth of the rows is all there is to compare
    assert outcome(few, few, chosen) is Outcome.HELD


@pytest.mark.parametrize("track", ["known-item", "two-hop"])
def test_a_loss_on_the_easy_or_on_the_hard_track_alone_is_seen(track: str) -> None:
    before = Baselines("starter").scores("hybrid_search_report")
    after = before.copy()
    after.loc[after["track"] == track, "ndcg_at_10__rrf"] -= 0.1
    held = [r for r in load_syllabus().regressions if r.asset == "hybrid_search_report" and r.only]
    assert {r.only["track"]: compare_scores(r, after, before).outcome is Outcome.REGRESSED for r in held} == {
        each: each == track for each in ("known-item", "two-hop")
    }


def test_examples_that_have_no_score_are_not_missed(old: pd.DataFrame) -> None:
    sparse = old.assign(f1=old["f1"].where(old.index < 40))  # a table of several tasks, of which one has this score
    found = compare_scores(F1, sparse, sparse)
    assert found.outcome is Outcome.HELD and found.units == 40


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.5, 0.5), st.integers(5, 60))
def test_the_outcome_follows_from_the_interval(shift: float, n: int) -> None:
    rng = np.random.default_rng(n)
    before = table(rng.uniform(size=n))
    found = compare_scores(F1, before.assign(f1=before["f1"] + shift + rng.normal(0, 0.1, n)), before)
    assert found.low <= found.gain + 1e-9 and found.gain <= found.high + 1e-9
    expected = Outcome.REGRESSED if found.high < -0.05 else Outcome.INCONCLUSIVE if found.low < -0.05 else Outcome.HELD
    assert found.outcome is expected


def publish(store: ArtifactStore, scores: pd.DataFrame, version: str, data: str = "d1") -> None:
    with store.staging("qa_report") as staged:
        StudyResult(study="qa_report", metrics=[Metric(name="f1", value=scores["f1"].mean())], per_example=scores).save(staged)
        store.publish(staged, Manifest(asset="qa_report", version=version, key=version, kind="result", inputs={"qa_dataset": data}))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def test_an_accepted_state_keeps_scores_and_identity_and_is_what_later_ones_are_held_against(
    old: pd.DataFrame, store: ArtifactStore, tmp_path: Path
) -> None:
    baselines = Baselines("mine", tmp_path / "baselines")
    publish(store, old, "v0")
    assert change_since(F1, store, baselines).outcome is Outcome.NO_BASELINE
    record = baselines.accept([F1], store, "qa_report", "the first one")
    assert record["inputs"] == {"qa_dataset": "d1"} and record["version"] == "v0" and baselines.assets() == ["qa_report"]
    assert change_since(F1, store, baselines).outcome is Outcome.HELD
    publish(store, old.assign(f1=old["f1"] - 0.2), "v1")
    change = change_since(F1, store, baselines)
    assert change.outcome is Outcome.REGRESSED and exit_code([], True, [change]) == 1
    baselines.accept([F1], store, "qa_report", "a smaller model was asked for")
    assert change_since(F1, store, baselines).outcome is Outcome.HELD
    assert (baselines.record("qa_report") or {})["reason"] == "a smaller model was asked for"


def test_on_other_data_a_deterministic_score_is_held_to_its_margin_alone(old: pd.DataFrame, store: ArtifactStore, tmp_path: Path) -> None:
    exact, baselines = F1.model_copy(update={"deterministic": True}), Baselines("mine", tmp_path / "baselines")
    with store.staging("qa_dataset") as staged:
        (staged / "table.parquet").write_bytes(b"")
        store.publish(staged, Manifest(asset="qa_dataset", version="t0", key="t0", kind="table"))
    publish(store, old, "v0", data="d1")
    assert baselines.accept([exact], store, "qa_report", "the first one")["data"] == {"qa_dataset": "d1"}
    moved = old.assign(f1=old["f1"] + 0.01)
    publish(store, moved, "v1", data="d1")
    assert change_since(exact, store, baselines).outcome is Outcome.CHANGED
    publish(store, moved, "v2", data="d2")
    assert change_since(exact, store, baselines).outcome is Outcome.HELD


def test_a_warning_does_not_change_the_exit_code(old: pd.DataFrame) -> None:
    assert exit_code([], True, [compare_scores(F1, old, None)]) == 0
    doubted = Regression(asset="qa_report", score="f1", margin=0.05, blocking=False)
    assert exit_code([], True, [compare_scores(doubted, old.assign(f1=old["f1"] - 0.2), old)]) == 0


@pytest.mark.parametrize(("asset", "reason", "says"), [
    ("qa_report", " ", "--reason"), ("rag_report", "why not", "no score under regression"), ("qa_report", "never measured", "never measured"),
])  # fmt: skip
def test_what_cannot_be_accepted_is_one_sentence(store: ArtifactStore, tmp_path: Path, asset: str, reason: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Baselines("mine", tmp_path).accept([F1], store, asset, reason)
    assert Baselines("mine", tmp_path).assets() == []


def test_two_runs_side_by_side(old: pd.DataFrame, store: ArtifactStore, tmp_path: Path) -> None:
    states = States(tmp_path / "runs", store, Baselines("mine", tmp_path / "baselines"))
    publish(store, old, "v0")
    first = states.keep()
    publish(store, old.assign(f1=old["f1"] + 0.1), "v1")
    (change,) = states.compare(first, "latest", [F1])
    assert change.gain == pytest.approx(0.1) and states.metrics(first, "latest")[0][:2] == ("qa_report", "f1")
    assert states.metrics(first, first) == []
    with pytest.raises(UserError, match=rf"no run is kept under 'yesterday'.*{first}"):
        states.compare("yesterday", "latest", [F1])
    with pytest.raises(UserError, match="name it first"):
        states.compare("latest", "baseline", [F1])
