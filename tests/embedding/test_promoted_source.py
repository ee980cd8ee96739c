"""``promoted:embedder`` as a model source: the version in force, a version by name, and what an index says of the one that built it."""

from __future__ import annotations

from pathlib import Path

import pytest

from curriculum.errors import SourceError
from curriculum.sources import promoted_sources
from curriculum.storage import ArtifactStore, Manifest
from resources.artifact_store import Artifacts
from resources.model_store import ModelStore


def promote(store: ArtifactStore, version: str) -> Path:
    with store.staging("embedder") as staged:
        (staged / "model.safetensors").write_bytes(version.encode())
        made = store.publish(staged, Manifest(asset="embedder", version=version, key=version, kind="model"))
    return store.path(store.refer("promoted_embedder", made, {}))


def test_the_version_in_force_is_named_and_an_earlier_one_stays_readable(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "artifacts"))
    models = ModelStore(cache=str(tmp_path / "models"), artifacts=Artifacts(root=str(tmp_path / "artifacts"), local=str(tmp_path / "artifacts")))
    with pytest.raises(SourceError, match="curriculum run --job search"):
        models.folder("promoted:embedder")
    first = promote(store, "one")
    pinned, identity = models.pinned("promoted:embedder"), models.identity("promoted:embedder", "encoder")
    assert models.folder("promoted:embedder") == models.folder(pinned) == first and identity.source == pinned == "promoted:embedder@embedder-one"
    second = promote(store, "two")
    assert models.folder("promoted:embedder") == second and models.folder(pinned) == first
    assert models.identity("promoted:embedder", "encoder").digest != identity.digest == models.identity(pinned, "encoder").digest
    assert models.pinned("packaged:minilm") == "packaged:minilm" and models.pinned(pinned) == pinned
    with pytest.raises(SourceError, match="promoted:embedder@gone"):
        models.folder("promoted:embedder@gone")


def test_promoted_sources_are_found_wherever_settings_name_them() -> None:
    assert promoted_sources({"a": ["packaged:minilm", {"b": "promoted:embedder"}], "c": 3, "d": "path:x"}) == {"promoted:embedder"}
