"""Automation never runs past a failed blocking check: a promotion is asked for once its gate has passed, not before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.lineage import Lab, lineage_asset
from curriculum.syllabus import Bar
from pipelines.guardrails import bar_check, promotion
from resources.build import build_resources

if TYPE_CHECKING:
    from curriculum.artifacts import ModelArtifact
    from curriculum.results import StudyResult

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
state: dict[str, float] = {}


@lineage_asset(group="test")
def candidate(lab: Lab) -> ModelArtifact:
    """A model."""
    from curriculum.artifacts import ModelArtifact

    (lab.out / "model.bin").write_text(str(state["f1"]))
    return ModelArtifact(lab.out)


@lineage_asset(group="test")
def evidence(lab: Lab, candidate: ModelArtifact) -> StudyResult:
    """Its measurement."""
    from curriculum.results import Metric, StudyResult

    return StudyResult(study="evidence", metrics=[Metric(name="f1", value=state["f1"])])


FLOOR = bar_check("floor_f1", Bar(asset="evidence", metric="f1", min=0.5))
PROMOTED = promotion("promoted", candidate="candidate", evidence="evidence", checks=["floor_f1"], group="test", description="")


@dg.asset(deps=["candidate", "evidence"], automation_condition=dg.AutomationCondition.eager())
def heedless() -> None:
    """Downstream of the same, without the condition on checks: what is tested here can fail."""



def definitions(folder: Path) -> dg.Definitions:
    resources = build_resources("starter", folder, journal=False, fresh=True)
    return dg.Definitions(assets=[candidate, evidence, PROMOTED, heedless], asset_checks=[FLOOR], resources=resources)


def measure(instance: dg.DagsterInstance, folder: Path, f1: float) -> Any:
    state["f1"] = f1
    resources = build_resources("starter", folder, journal=False, fresh=True)
    return dg.materialize([candidate, evidence, FLOOR], resources=resources, instance=instance, run_config=QUIET, raise_on_error=False)


def asked(instance: dg.DagsterInstance, folder: Path, cursor: Any = None) -> tuple[set[str], Any]:
    found = dg.evaluate_automation_conditions(definitions(folder), instance=instance, cursor=cursor)
    return {name for name in ("promoted", "heedless") if found.get_num_requested(dg.AssetKey(name))}, found.cursor


def test_a_promotion_is_asked_for_only_once_its_blocking_check_has_passed(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        requested, cursor = asked(instance, tmp_path)
        assert not requested  # nothing is there to promote
        assert not measure(instance, tmp_path, 0.1).success
        requested, cursor = asked(instance, tmp_path, cursor)
        assert requested == {"heedless"}
        assert not measure(instance, tmp_path, 0.2).success  # better, and not good enough
        requested, cursor = asked(instance, tmp_path, cursor)
        assert "promoted" not in requested
        assert measure(instance, tmp_path, 0.9).success
        requested, cursor = asked(instance, tmp_path, cursor)
        assert "promoted" in requested
        assert not asked(instance, tmp_path, cursor)[0]  # once


def test_every_promotion_of_the_code_location_has_the_condition() -> None:
    from pipelines.definitions import defs
    from pipelines.guardrails import PROMOTE
    from pipelines.promotions import PROMOTIONS

    graph = defs.resolve_asset_graph()
    automated = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).automation_condition is not None}
    assert automated == set(PROMOTIONS)
    assert all(graph.get(dg.AssetKey(name)).automation_condition == PROMOTE for name in PROMOTIONS)
