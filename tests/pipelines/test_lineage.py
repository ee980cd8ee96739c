"""lineage_asset: reuse, fresh runs, kills, and errors that lose nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from assets.lineage import Lab, lineage_asset
from curriculum import storage
from resources.build import build_resources

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import ModelArtifact
    from curriculum.results import StudyResult

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
calls: list[str] = []


@lineage_asset(group="test", topics=("lora",))
def numbers(lab: Lab) -> pd.DataFrame:
    """A table."""
    import pandas as pd

    calls.append("numbers")
    return pd.DataFrame({"doc_id": ["a", "b"], "value": [1.0, lab.seed]})


@lineage_asset(group="test")
def weights(lab: Lab, numbers: pd.DataFrame) -> ModelArtifact:
    """A model directory."""
    from curriculum.artifacts import ModelArtifact

    calls.append("weights")
    (lab.out / "model.bin").write_text(str(numbers["value"].sum()))
    return ModelArtifact(lab.out, {"rows": len(numbers)})


@lineage_asset(group="test")
def study(lab: Lab, weights: ModelArtifact) -> StudyResult:
    """A result that reads the model's file."""
    from curriculum.results import Metric, StudyResult

    calls.append("study")
    return StudyResult(study="study", metrics=[Metric(name="total", value=float((weights.path / "model.bin").read_text()))])


CHAIN = [numbers, weights, study]


def run(resources: dict[str, Any], **kwargs: Any) -> dg.ExecuteInProcessResult:
    calls.clear()
    return dg.materialize(CHAIN, resources=resources, run_config=QUIET, **kwargs)


def test_a_second_run_reuses_everything_and_says_so(tmp_path: Path) -> None:
    first = run(build_resources("starter", tmp_path, journal=False))
    assert first.success and calls == ["numbers", "weights", "study"]
    again = run(build_resources("starter", tmp_path, journal=False))
    assert again.success and calls == []
    shown = again.asset_materializations_for_node("study")[0].metadata
    assert shown["reused"].value is True and shown["metric/total"].value == 1.0


def test_a_changed_setting_computes_again_only_what_it_changes(tmp_path: Path) -> None:
    run(build_resources("starter", tmp_path, journal=False))
    run(build_resources("starter", tmp_path, journal=False, overrides={"seed": 7}))
    assert calls == ["numbers", "weights", "study"]


def test_fresh_computes_everything_and_keeps_the_earlier_version(tmp_path: Path) -> None:
    run(build_resources("starter", tmp_path, journal=False))
    run(build_resources("starter", tmp_path, journal=False, fresh=True))
    assert calls == ["numbers", "weights", "study"]
    store = build_resources("starter", tmp_path, journal=False)["artifacts"].store()
    assert len(store.versions("weights")) == 2


def test_a_corrupted_artifact_is_made_again_upstream_of_what_needs_it(tmp_path: Path) -> None:
    resources = build_resources("starter", tmp_path, journal=False)
    run(resources)
    store = resources["artifacts"].store()
    manifest = store.manifest("weights")
    assert manifest is not None
    (store.path(manifest) / "model.bin").write_text("9")
    storage._verified.clear()
    result = run(build_resources("starter", tmp_path, journal=False))
    assert result.success and calls == ["weights"]


def test_the_record_of_a_study_holds_what_it_cost(tmp_path: Path) -> None:
    resources = build_resources("starter", tmp_path, journal=False)
    run(resources)
    store = resources["artifacts"].store()
    from curriculum.results import StudyResult

    manifest = store.manifest("study")
    assert manifest is not None and manifest.inputs.keys() == {"weights"}
    record = StudyResult.load(store.path(manifest)).run
    assert record is not None and record.profile == "starter" and record.peak_memory_bytes > 10**7 and record.wall_seconds > 0


def test_the_journal_holds_the_study(tmp_path: Path) -> None:
    run(build_resources("starter", tmp_path, journal=True))
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'journal.db'}")
    experiment = client.get_experiment_by_name("curriculum")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [r.data.metrics["total"] for r in runs] == [1.0] and runs[0].info.status == "FINISHED"


def test_two_journals_in_one_process_are_kept_apart(tmp_path: Path) -> None:
    import mlflow

    for name in ("first", "second"):
        run(build_resources("starter", tmp_path / name, journal=True))
    for name in ("first", "second"):
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / name / 'journal.db'}")
        experiment = client.get_experiment_by_name("curriculum")
        assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 1


def test_an_input_that_was_never_made_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="'numbers' has not been materialised") as caught:
        run(build_resources("starter", tmp_path, journal=False), selection=[weights])
    assert caught.value is not None and calls == []


KILLED = """
import os, signal, sys
from pathlib import Path
import dagster as dg
from tests.pipelines import test_lineage as t
from resources.build import build_resources
from curriculum.storage import ArtifactStore
real = ArtifactStore.publish
def dies(self, staged, manifest):
    if manifest.asset == "weights":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, staged, manifest)
ArtifactStore.publish = dies
t.run(build_resources("starter", Path(sys.argv[1]), journal=False))
"""


def test_kill_9_during_a_run_keeps_what_was_finished(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    result = run(build_resources("starter", tmp_path, journal=False))
    assert result.success and calls == ["weights", "study"]
