"""Rolling back: an earlier promoted version is served again, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from curriculum.errors import IntegrityError, UserError
from curriculum.evaluation.rollback import roll_back
from curriculum.storage import ArtifactStore, Manifest


def make(store: ArtifactStore, version: str) -> Manifest:
    with store.staging("reader") as staged:
        (staged / "weights").write_text(version)
        return store.publish(staged, Manifest(asset="reader", version=version, key=version, kind="model"))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    store = ArtifactStore(str(tmp_path))
    for version in ("v1", "v2", "v3"):
        store.refer("promoted_reader", make(store, version), {})
    return store


def served(store: ArtifactStore) -> str:
    return (store.path(store.manifest("promoted_reader")) / "weights").read_text()


def test_back_and_forth(store: ArtifactStore) -> None:
    assert roll_back(store, "promoted_reader") == ("reader-v3", "reader-v2") and served(store) == "v2"
    assert roll_back(store, "promoted_reader") == ("reader-v2", "reader-v1") and served(store) == "v1"
    assert roll_back(store, "promoted_reader", "reader-v3")[1] == "reader-v3" and served(store) == "v3"


def test_what_cannot_be_rolled_back_is_one_sentence(store: ArtifactStore) -> None:
    roll_back(store, "promoted_reader", "reader-v1")
    for asset, version, says in (
        ("promoted_reader", "", "no version before reader-v1"), ("promoted_reader", "v9", "it has reader-v1, reader-v2, reader-v3"),
        ("reader", "", "no promoted asset"), ("nothing", "", "no promoted asset"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            roll_back(store, asset, version)
    assert served(store) == "v1"


def test_a_version_whose_files_are_damaged_is_not_pointed_at(store: ArtifactStore) -> None:
    (store.root / "reader" / "v2" / "weights").write_text("something else")
    with pytest.raises(IntegrityError):
        roll_back(store, "promoted_reader")
    assert served(store) == "v3"
