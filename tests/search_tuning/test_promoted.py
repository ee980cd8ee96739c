"""The chosen setting is promoted where its gain on test is above none, and not otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from assets.lineage import Lab, lineage_asset
from assets.search_tuning import search_settings
from curriculum.profile import load_profile
from curriculum.search_tuning.chosen import read_chosen
from curriculum.search_tuning.settings import SearchSetting
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from pipelines.guardrails import bar_checks
from pipelines.promotions import promotions
from resources.build import build_resources

if TYPE_CHECKING:
    from curriculum.results import StudyResult

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SYLLABUS, PROFILE = load_syllabus(), load_profile("starter")
CHOSEN = SearchSetting(passage_words=90, fusion="dbsf", dense_weight=0.7, depth=50, k1=1.2, b=0.3, rerank_depth=10)
state: dict[str, Any] = {}


@lineage_asset(group="test", name="search_tuning_study")
def study(lab: Lab) -> StudyResult:
    """What a study came to: its gain with the interval, and its guards."""
    from curriculum.results import Metric, StudyResult

    gain, low, high = state["gain"]
    guards = {"default_mismatches": 0.0, "settings_read_on_test": 2.0, "gain_optimism": 0.01, "test_gain_low": low}
    metrics = [Metric(name="test_gain", value=gain, low=low, high=high, n=80), *(Metric(name=n, value=v) for n, v in guards.items())]
    return StudyResult(study="search_tuning_study", metrics=metrics, settings={"chosen": state["chosen"].model_dump(mode="json")})


CHECKS = [c for c in bar_checks(SYLLABUS, PROFILE) if all(key.asset_key.path == ["search_tuning_study"] for key in c.check_keys)]
(PROMOTED,) = (p for p in promotions(SYLLABUS, PROFILE) if p.key.path == ["promoted_search_settings"])


def run(folder: Path, instance: dg.DagsterInstance, selection: Any = None, *, gain: tuple[float, float, float], chosen: SearchSetting = CHOSEN) -> Any:
    state.update(gain=gain, chosen=chosen)
    return dg.materialize(
        [study, *CHECKS, search_settings, PROMOTED], resources=build_resources("starter", folder, journal=False, fresh=True),
        instance=instance, selection=selection, run_config=QUIET, raise_on_error=False,
    )  # fmt: skip


def refusal(result: Any) -> str:
    return " ".join(e.event_specific_data.error.to_string() for e in result.all_events if e.event_type_value == "STEP_FAILURE")


def test_a_gain_is_promoted_and_one_that_may_be_none_is_not(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts" / "starter"))
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(tmp_path, instance, gain=(0.03, 0.01, 0.05)).success
        kept = store.manifest("promoted_search_settings")
        assert kept is not None and read_chosen(store.path(kept)) == CHOSEN
        assert (kept.facts["collection"], kept.facts["passage_words"], kept.facts["test_gain_low"]) == ("project", 90, 0.01)

        doubtful = CHOSEN.model_copy(update={"k1": 0.5})
        refused = run(tmp_path, instance, gain=(0.02, -0.001, 0.04), chosen=doubtful)
        (failed,) = [e for e in refused.get_asset_check_evaluations() if not e.passed]
        assert not refused.success and failed.check_name == "claim_search_tuning_study_test_gain_low" and failed.blocking
        for also in ([search_settings], [PROMOTED]):  # whoever asks for the rest alone is refused too
            alone = run(tmp_path, instance, also, gain=(0.02, -0.001, 0.04), chosen=doubtful)
        assert "refused: the check 'claim_search_tuning_study_test_gain_low' on 'search_tuning_study' did not pass" in refusal(alone)
        assert store.manifest("promoted_search_settings") == kept


def test_a_candidate_of_another_study_than_the_one_that_passed_is_refused(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(tmp_path, instance, gain=(0.03, 0.01, 0.05)).success
        newer = [study, *CHECKS]
        assert run(tmp_path, instance, newer, gain=(0.04, 0.02, 0.06), chosen=CHOSEN.model_copy(update={"depth": 20})).success
        alone = run(tmp_path, instance, [PROMOTED], gain=(0.04, 0.02, 0.06))
    assert "the latest 'search_tuning_study' measured another version of 'search_settings'" in refusal(alone)


@pytest.mark.parametrize("profile", ["starter", "workstation"])
def test_before_the_study_ever_ran_its_gate_holds_nothing_up(tmp_path: Path, profile: str) -> None:
    from curriculum.evaluation.gate import Verdict, active_bars, judge_stored

    bars = [bar for bar in active_bars(SYLLABUS, load_profile(profile)).values() if bar.asset == "search_tuning_study"]
    verdicts = {judge_stored(bar, ArtifactStore(str(tmp_path))).verdict for bar in bars}
    assert bars and verdicts == {Verdict.NOT_RUN}
