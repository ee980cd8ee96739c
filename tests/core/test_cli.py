"""The command line: one sentence for a mistake, and the gate's exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curriculum.cli import app
from curriculum.results import Metric, StudyResult
from curriculum.storage import ArtifactStore, Manifest
from curriculum.syllabus import load_syllabus

ROOT = Path(__file__).parents[2]
PROFILE = "milestones: {reader: {kind: stand-in, measured_on: a test}}\nfloors: [{asset: qa_report, metric: f1, min: 0.5, milestone: reader}]\n"


def test_an_unknown_profile_is_one_line_and_exit_2(tmp_path: Path) -> None:
    environment = {**os.environ, "CURRICULUM_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "curriculum.cli", "run", "--profile", "nope"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: unknown profile 'nope'") and "Traceback" not in done.stderr


def publish(store: ArtifactStore, asset: str, metrics: list[Metric]) -> None:
    with store.staging(asset) as staged:
        StudyResult(study=asset, metrics=metrics).save(staged)
        version = f"v{len(store.versions(asset))}"
        store.publish(staged, Manifest(asset=asset, version=version, key=version, kind="result"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CURRICULUM_HOME", str(tmp_path / "home"))
    (tmp_path / "mine.yaml").write_text(PROFILE)
    return tmp_path


def gate(home: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["gate", "--profile", str(home / "mine.yaml")])
    return done.exit_code, done.output


def test_the_gate_tells_well_from_regression_from_broken(home: Path) -> None:
    store = ArtifactStore(str(home / "home" / "artifacts" / "mine"))
    assert gate(home)[0] == 2
    claims = load_syllabus().claims
    for asset in {c.asset for c in claims}:
        held = [c for c in claims if c.asset == asset]
        publish(store, asset, [Metric(name=c.metric, value=c.max if c.max is not None else c.min) for c in held])
    publish(store, "qa_report", [Metric(name="f1", value=0.7)])
    code, text = gate(home)
    assert code == 0 and "all well" in text and "Reader" in text
    publish(store, "qa_report", [Metric(name="f1", value=0.2)])
    code, text = gate(home)
    assert code == 1 and "floor_qa_report_f1" in text
    card = (home / "home" / "report_card_mine.html").read_text()
    assert "qa_report" in card and "0.2" in card and "<script" not in card


def test_accepting_a_baseline_makes_the_gate_see_a_regression_and_is_journaled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import pandas as pd

    monkeypatch.setenv("CURRICULUM_BASELINES", str(home / "baselines"))
    monkeypatch.setenv("COLUMNS", "160")  # what is folded on a narrow terminal is not found in the text
    store, profile = ArtifactStore(str(home / "home" / "artifacts" / "mine")), str(home / "mine.yaml")

    def measure(level: float) -> None:
        scores = pd.DataFrame({"example_id": [f"q{i}" for i in range(60)], "f1": [level + 0.001 * i for i in range(60)]})
        with store.staging("qa_report") as staged:
            StudyResult(study="qa_report", metrics=[Metric(name="f1", value=0.7)], per_example=scores).save(staged)
            version = f"v{level}"
            store.publish(staged, Manifest(asset="qa_report", version=version, key=version, kind="result"))

    measure(0.8)
    done = CliRunner().invoke(app, ["accept", "qa_report", "--reason", "the first one", "--profile", profile])
    assert done.exit_code == 0 and "accepted qa_report v0.8: 60 examples" in done.output
    client = mlflow.MlflowClient(f"sqlite:///{home / 'home' / 'journal.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("curriculum").experiment_id])
    assert run.data.tags["reason"] == "the first one" and run.data.tags["accepted"] == "qa_report"
    measure(0.6)
    code, text = gate(home)
    assert code == 1 and "regressed" in text
    side_by_side = CliRunner().invoke(app, ["compare", "baseline", "latest", "--profile", profile])
    assert side_by_side.exit_code == 0 and ".f1" in side_by_side.output and "-0.2" in side_by_side.output


def test_a_service_is_the_program_itself_on_the_instance_of_this_project(tmp_path: Path) -> None:
    environment = {**os.environ, "CURRICULUM_HOME": str(tmp_path), "CURRICULUM_POSTGRES_URL": "postgresql+psycopg2://u:0secret0@host/db"}
    told = "import os; print(os.getpid(), os.environ['DAGSTER_HOME'], os.environ['CURRICULUM_PROFILE'], os.getcwd()); raise SystemExit(3)"
    command = [sys.executable, "-m", "curriculum.cli", "service", "--profile", "workstation", "--", "python", "-c", told]
    started = subprocess.Popen(command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    said, _ = started.communicate(timeout=60)
    assert said.split() == [str(started.pid), str(tmp_path / "dagster"), "workstation", str(ROOT)] and started.returncode == 3
    written = (tmp_path / "dagster/dagster.yaml").read_text()
    assert "postgres_url: {env: CURRICULUM_POSTGRES_URL}" in written and "0secret0" not in written
    done = subprocess.run([*command[:4], "--", "dagster-deamon"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: there is no program 'dagster-deamon'")
