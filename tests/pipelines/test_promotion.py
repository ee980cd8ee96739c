"""Promotion: a candidate passes its gate or is refused, whatever the run that asks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from assets.lineage import Lab, lineage_asset
from curriculum.syllabus import Bar
from pipelines.guardrails import bar_check, promotion, table_check
from resources.build import build_resources

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import ModelArtifact
    from curriculum.results import StudyResult

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
state: dict[str, Any] = {}


@lineage_asset(group="test")
def candidate(lab: Lab) -> ModelArtifact:
    """A model."""
    from curriculum.artifacts import ModelArtifact

    (lab.out / "model.bin").write_text(state["weights"])
    return ModelArtifact(lab.out)


@lineage_asset(group="test")
def evidence(lab: Lab, candidate: ModelArtifact) -> StudyResult:
    """Its measurement."""
    from curriculum.results import Metric, StudyResult

    metrics = [] if state["f1"] is None else [Metric(name="f1", value=state["f1"])]
    return StudyResult(study="evidence", metrics=metrics)


@lineage_asset(group="test")
def served(lab: Lab, promoted: ModelArtifact) -> pd.DataFrame:
    """Downstream of the promoted one."""
    import pandas as pd

    return pd.DataFrame({"text": [(promoted.path / "model.bin").read_text()]})


FLOOR = bar_check("floor_f1", Bar(asset="evidence", metric="f1", min=0.5))
PROMOTED = promotion("promoted", candidate="candidate", evidence="evidence", checks=["floor_f1"], group="test", description="")
ALL = [candidate, evidence, PROMOTED, served, FLOOR]


def go(instance: dg.DagsterInstance, folder: Path, selection: Any = None, *, f1: float | None, weights: str = "w") -> Any:
    state.update(f1=f1, weights=weights)
    resources = build_resources("starter", folder, journal=False, fresh=True)
    return dg.materialize(
        ALL, resources=resources, instance=instance, selection=selection, run_config=QUIET, raise_on_error=False
    )


def failures(result: Any) -> str:
    return " ".join(
        e.event_specific_data.error.to_string() for e in result.all_events if e.event_type_value == "STEP_FAILURE"
    )


def test_a_good_candidate_is_promoted_and_served(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = go(instance, tmp_path, f1=0.9, weights="good")
    assert result.success and result.output_for_node("served").manifest.kind == "table"


@pytest.mark.parametrize("f1", [0.1, math.nan, math.inf, None])
def test_a_bad_nan_or_missing_metric_stops_everything_downstream(tmp_path: Path, f1: float | None) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = go(instance, tmp_path, f1=f1)
        assert not result.success
        check = result.get_asset_check_evaluations()[0]
        assert not check.passed and check.check_name == "floor_f1"
    made = {e.step_key for e in result.all_events if e.event_type_value == "STEP_SUCCESS"}
    assert "evidence" in made and not made & {"promoted", "served"}


def test_a_later_run_of_the_promotion_alone_reads_the_gate_again_and_refuses(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert go(instance, tmp_path, f1=0.9, weights="good").success
        assert not go(instance, tmp_path, f1=0.1, weights="bad").success
        refused = go(instance, tmp_path, [PROMOTED], f1=0.1)
        assert not refused.success and "'promoted' refused: the check 'floor_f1' on 'evidence' did not pass" in failures(refused)
        served_again = go(instance, tmp_path, [served], f1=0.1)
        assert served_again.success
        store = build_resources("starter", tmp_path, journal=False)["artifacts"].store()
        promoted = store.manifest("promoted")
        assert promoted is not None and (store.path(promoted) / "model.bin").read_text() == "good"


def test_evidence_about_another_version_does_not_promote(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert go(instance, tmp_path, f1=0.9, weights="good").success
        assert go(instance, tmp_path, [candidate], f1=0.9, weights="never measured").success
        refused = go(instance, tmp_path, [PROMOTED], f1=0.9)
        assert not refused.success and "measured another version of 'candidate'" in failures(refused)


@lineage_asset(group="test")
def twice(lab: Lab) -> pd.DataFrame:
    """A table with an id twice, or no rows."""
    import pandas as pd

    return pd.DataFrame({"doc_id": state["ids"]}, dtype=str)


@pytest.mark.parametrize(("ids", "passed"), [(["a", "b"], True), (["a", "a"], False), ([], False)])
def test_the_table_check_sees_duplicate_ids_and_empty_tables(tmp_path: Path, ids: list[str], passed: bool) -> None:
    state["ids"] = ids
    resources = build_resources("starter", tmp_path, journal=False)
    found = dg.materialize([twice, table_check("twice", "doc_id")], resources=resources, run_config=QUIET, raise_on_error=False)
    assert found.get_asset_check_evaluations()[0].passed is passed


def test_what_is_downstream_names_the_version_it_was_made_from(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        results = [go(instance, tmp_path, f1=0.9, weights=weights) for weights in ("first", "second")]
    named = []
    for result in results:
        candidate_version = result.output_for_node("candidate").manifest.version
        manifest = result.output_for_node("served").manifest
        assert manifest.made_from == {"promoted": f"candidate-{candidate_version}"}
        (shown,) = result.asset_materializations_for_node("served")
        assert f"| promoted | candidate-{candidate_version} |" in shown.metadata["made from"].value
        named.append(manifest.made_from["promoted"])
    assert named[0] != named[1]
