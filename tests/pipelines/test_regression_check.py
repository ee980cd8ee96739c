"""The regression check in a run: a regression stops what is downstream and is not promoted; doubt only warns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from assets.lineage import Lab, lineage_asset
from curriculum.evaluation.baselines import Baselines
from curriculum.syllabus import Bar, Regression
from pipelines.guardrails import bar_check, promotion, regression_check
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

    (lab.out / "model.bin").write_text(str(state["level"]))
    return ModelArtifact(lab.out)


@lineage_asset(group="test")
def evidence(lab: Lab, candidate: ModelArtifact) -> StudyResult:
    """Its measurement, per example."""
    import pandas as pd

    from curriculum.results import Metric, StudyResult

    scores = pd.DataFrame({"example_id": [f"q{i}" for i in range(50)], "f1": [state["level"] + 0.001 * i for i in range(50)]})
    return StudyResult(study="evidence", metrics=[Metric(name="f1", value=0.9)], per_example=scores)


REGRESSION = Regression(asset="evidence", score="f1", margin=0.02)
GATE = ["floor_f1", "regression_f1"]
ALL = [
    candidate, evidence, bar_check("floor_f1", Bar(asset="evidence", metric="f1", min=0.5)), regression_check(REGRESSION),
    promotion("promoted", candidate="candidate", evidence="evidence", checks=GATE, group="test", description=""),
]  # fmt: skip


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Baselines:
    monkeypatch.setenv("CURRICULUM_BASELINES", str(tmp_path / "baselines"))
    return Baselines("starter")


def go(instance: dg.DagsterInstance, folder: Path, level: float) -> tuple[Any, Any]:
    state["level"] = level
    resources = build_resources("starter", folder, journal=False, fresh=True)
    result = dg.materialize(ALL, resources=resources, instance=instance, run_config=QUIET, raise_on_error=False)
    check = next(c for c in result.get_asset_check_evaluations() if c.check_name == "regression_f1")
    return result, check


def test_a_regression_fails_the_run_and_is_not_promoted(tmp_path: Path, baselines: Baselines) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first, check = go(instance, tmp_path, 0.8)
        assert first.success and not check.passed and check.severity is dg.AssetCheckSeverity.WARN  # no baseline yet
        store = build_resources("starter", tmp_path, journal=False)["artifacts"].store()
        baselines.accept([REGRESSION], store, "evidence", "the first one")
        good = store.manifest("promoted").target
        worse, check = go(instance, tmp_path, 0.7)
        assert not worse.success and not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
        assert check.metadata["gain"].value == pytest.approx(-0.1) and "margin of 0.02" in check.description
        assert store.manifest("promoted").target == good
        again, check = go(instance, tmp_path, 0.8)
        assert again.success and check.passed
