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
