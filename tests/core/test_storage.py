"""The artifact store: nothing half-written is read, nothing finished is lost, whatever kills the writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum import storage
from curriculum.disk import write_atomically
from curriculum.errors import IntegrityError, UserError
from curriculum.storage import ArtifactStore, Manifest


def publish(store: ArtifactStore, asset: str, key: str, content: bytes = b"weights") -> Manifest:
    with store.staging(asset) as staged:
        (staged / "sub").mkdir()
        (staged / "sub" / "data.bin").write_bytes(content)
        return store.publish(staged, Manifest(asset=asset, version=key, key=key, kind="directory"))


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    storage._verified.clear()
    return ArtifactStore(str(tmp_path))


def test_what_was_published_is_found_by_its_key_and_verified(store: ArtifactStore) -> None:
    made = publish(store, "reader", "k1")
    found = store.find("reader", "k1")
    assert found is not None and found.digest == made.digest
    assert (store.path(found) / "sub" / "data.bin").read_bytes() == b"weights"
    assert store.find("reader", "other") is None


@given(content=st.binary(max_size=64), other=st.binary(max_size=64))
def test_the_digest_depends_on_contents_alone(tmp_path_factory: pytest.TempPathFactory, content: bytes, other: bytes) -> None:
    store = ArtifactStore(str(tmp_path_factory.mktemp("store")))
    first, second = publish(store, "a", "k1", content), publish(store, "b", "k2", other)
    assert (first.digest == second.digest) == (content == other)


def test_a_flipped_byte_is_one_clear_error_and_the_computation_is_offered_again(store: ArtifactStore) -> None:
    made = publish(store, "reader", "k1")
    (store.root / "reader" / "k1" / "sub" / "data.bin").write_bytes(b"weightz")
    storage._verified.clear()
    with pytest.raises(IntegrityError, match=r"'reader' is corrupted: .*data\.bin differs from its checksum; run `dagster asset materialize -m pipelines.definitions --select reader`"):
        store.path(made)
    assert store.find("reader", "k1") is None


def test_a_missing_file_is_named(store: ArtifactStore) -> None:
    made = publish(store, "reader", "k1")
    (store.root / "reader" / "k1" / "sub" / "data.bin").unlink()
    storage._verified.clear()
    with pytest.raises(IntegrityError, match=r"data\.bin is missing"):
        store.path(made)


def test_an_earlier_version_survives_a_later_one(store: ArtifactStore) -> None:
    first = publish(store, "reader", "k1", b"one")
    publish(store, "reader", "k2", b"two")
    latest = store.manifest("reader")
    assert latest is not None and latest.version == "k2"
    assert (store.path(first) / "sub" / "data.bin").read_bytes() == b"one"


def test_two_writers_of_one_version_leave_one_good_copy(store: ArtifactStore) -> None:
    first = publish(store, "reader", "k1")
    second = publish(store, "reader", "k1")
    assert second.digest == first.digest and len(store.versions("reader")) == 1


def test_a_promotion_points_at_the_version_and_copies_nothing(store: ArtifactStore) -> None:
    made = publish(store, "reader", "k1")
    promoted = store.refer("promoted_reader", made, {"gate": ["floor_f1"]})
    assert promoted.digest == made.digest and promoted.files == {}
    publish(store, "reader", "k2", b"a worse candidate")
    assert (store.path(promoted) / "sub" / "data.bin").read_bytes() == b"weights"


def test_a_store_on_an_fsspec_url_gives_back_the_same_bytes(tmp_path: Path) -> None:
    store = ArtifactStore("memory://bucket/artifacts", tmp_path)
    made = publish(store, "reader", "k1", b"remote")
    again = ArtifactStore("memory://bucket/artifacts", tmp_path / "elsewhere")
    found = again.find("reader", "k1")
    assert found is not None and found.digest == made.digest
    assert (again.path(found) / "sub" / "data.bin").read_bytes() == b"remote"


WRITER = """
import os, signal, sys
from pathlib import Path
from curriculum import storage
from curriculum.storage import ArtifactStore, Manifest
store = ArtifactStore(sys.argv[1])
os.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)  # dies after every byte is written, before the version exists
with store.staging("reader") as staged:
    (staged / "data.bin").write_bytes(b"half" * 1000)
    store.publish(staged, Manifest(asset="reader", version="k2", key="k2", kind="directory"))
"""


def test_a_writer_killed_before_the_rename_leaves_the_last_good_version(store: ArtifactStore) -> None:
    good = publish(store, "reader", "k1")
    killed = subprocess.run([sys.executable, "-c", WRITER, str(store.root)], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    latest = store.manifest("reader")
    assert latest is not None and latest.version == good.version and store.find("reader", "k2") is None
    publish(store, "reader", "k3")  # the next write sweeps what the dead writer left
    assert list((store.local / ".staging").iterdir()) == []


FULL = """
import resource, sys
from curriculum.storage import ArtifactStore
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from curriculum.errors import UserError
store = ArtifactStore(sys.argv[1])
try:
    with store.staging("reader") as staged:
        (staged / "data.bin").write_bytes(b"x" * 100_000)
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_one_clear_error_and_loses_nothing(store: ArtifactStore) -> None:
    good = publish(store, "reader", "k1")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(store.root)], cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True
    )
    assert "is full while writing 'reader'" in done.stdout and "finished artifacts are untouched" in done.stdout
    assert store.path(good).exists() and list((store.local / ".staging").iterdir()) == []


def test_write_atomically_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "pointer.json"
    write_atomically(target, b"old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_a_corrupted_pointer_names_the_command_that_writes_it_anew(store: ArtifactStore) -> None:
    publish(store, "reader", "k1")
    (store.root / "reader" / "LATEST.json").write_text("{")
    with pytest.raises(UserError, match=r"LATEST\.json is corrupted .* run `dagster asset materialize -m pipelines.definitions --select reader`"):
        store.manifest("reader")
    found = store.find("reader", "k1")
    assert found is not None
    store.point(found)
    assert store.manifest("reader") == found


def test_checkpoints_are_kept_for_the_same_computation_and_dropped_once_it_is_published(store: ArtifactStore) -> None:
    folder = store.checkpoints("reader", "k1")
    (folder / "step.json").write_text(json.dumps({"step": 3}))
    assert (store.checkpoints("reader", "k1") / "step.json").exists()
    publish(store, "reader", "k1")
    assert not folder.exists()
