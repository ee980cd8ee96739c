"""The journal: settings, metrics and plots of every measured run, and every accepted baseline, in MLflow."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curriculum.errors import UserError
from curriculum.results import StudyResult

EXPERIMENT = "curriculum"


def journal_uri(folder: Path) -> str:
    """The tracking server of ``MLFLOW_TRACKING_URI``, or a file under ``folder``.

    Raises:
        UserError: that variable holds a server's password, which MLflow would repeat in its errors.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith(("http://", "https://")) and urlsplit(uri).password:
        raise UserError("MLFLOW_TRACKING_URI holds a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead")
    return uri or f"sqlite:///{folder / 'journal.db'}"


def _start(uri: str, artifacts: str, name: str, tags: dict[str, str]) -> tuple[Any, str]:
    """A client and the id of a new run."""
    import mlflow

    client = mlflow.MlflowClient(uri)  # not set_tracking_uri: it writes MLFLOW_TRACKING_URI, which journal_uri would then obey
    experiment = client.get_experiment_by_name(EXPERIMENT)
    location = Path(artifacts).absolute().as_uri() if artifacts else None
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT, location)
    return client, client.create_run(experiment_id, run_name=name, tags=tags).info.run_id


def journal_study(uri: str, artifacts: str, result: StudyResult, *, run_id: str, version: str) -> str:
    """Log one study; returns MLflow's run id. Non-finite metrics are left to the result record."""
    tags = {"dagster_run": run_id, "artifact_version": version, "study": result.study}
    client, key = _start(uri, artifacts, result.study, tags)
    for name, value in result.settings.items():
        client.log_param(key, name[:250], str(value)[:500])
    for metric in result.metrics:
        if math.isfinite(metric.value):
            client.log_metric(key, metric.name.replace("@", "_at_"), metric.value)
    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder))
        client.log_artifacts(key, folder)
    client.set_terminated(key)
    return key


def journal_acceptance(uri: str, artifacts: str, profile: str, record: dict[str, Any]) -> str:
    """Log that a baseline was accepted, and why; returns MLflow's run id."""
    tags = {"accepted": record["asset"], "artifact_version": record["version"], "profile": profile, "reason": record["reason"]}
    client, key = _start(uri, artifacts, f"accept {record['asset']}", tags)
    for name, value in record["means"].items():
        if math.isfinite(value):
            client.log_metric(key, name.replace("@", "_at_"), value)
    client.set_terminated(key)
    return key
