"""The resources of a profile, wired together: used by the definitions and by tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dagster as dg

from curriculum.journal import journal_uri
from resources.alerts import Alerts
from resources.artifact_store import ArtifactIOManager, Artifacts
from resources.compute import Compute
from resources.dataset_store import DatasetStore
from resources.generator import GeneratorResource
from resources.journal import Journal
from resources.model_store import ModelStore
from resources.settings import Settings

_PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Where this installation keeps its state: ``CURRICULUM_HOME``, or ``.curriculum`` beside the code."""
    return Path(os.environ.get("CURRICULUM_HOME") or _PROJECT / ".curriculum").absolute()


def build_resources(
    profile: str, folder: Path, *, overrides: dict[str, Any] | None = None, fresh: bool = False, journal: bool = True
) -> dict[str, Any]:
    """Every resource under its key. ``folder`` holds artifacts (one subfolder a profile), caches, locks and the journal."""
    settings = Settings(profile=profile, overrides=overrides or {})
    value = settings.value
    local = folder / "artifacts" / value.name
    artifacts = Artifacts(root=os.environ.get("CURRICULUM_ARTIFACTS") or str(local), local=str(local), fresh=fresh)
    compute = Compute.of(value.compute, folder / "locks")
    models = ModelStore(cache=str(folder / "models"), artifacts=artifacts)
    uri = journal_uri(folder)
    tracked = dg.EnvVar("MLFLOW_TRACKING_URI") if uri == os.environ.get("MLFLOW_TRACKING_URI") else uri  # a database's has a password
    return {
        "settings": settings,
        "alerts": Alerts(webhook=dg.EnvVar("CURRICULUM_WEBHOOK") if "CURRICULUM_WEBHOOK" in os.environ else ""),
        "compute": compute,
        "models": models,
        "datasets": DatasetStore(),
        "artifacts": artifacts,
        "io_manager": ArtifactIOManager(artifacts=artifacts),
        "journal": Journal(uri=tracked if journal else "", artifacts=str(folder / "journal")),
        "generator": GeneratorResource(settings=settings, models=models, compute=compute),
    }
