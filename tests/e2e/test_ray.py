"""Encoding on a local Ray cluster of two nodes, one of which is killed half-way. Needs ray: `make ray`."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curriculum.cluster.session import ROOT, load_ray, ray_session, workers_path
from curriculum.cluster.workers import Workers
from curriculum.errors import UserError

os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")  # the machine may have other work
try:
    load_ray()
except UserError as lacks:
    pytest.skip(str(lacks), allow_module_level=True)

pytestmark = pytest.mark.e2e
NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "include_dashboard": False}
SHARD, PASSAGES = 50, 1500


class Letters:
    """A worker that needs no model: texts as (their length, their first letter), a tenth of a second a batch."""

    def __init__(self, seconds: float) -> None:
        if seconds < 0:
            raise UserError("seconds are not negative")
        self.seconds = seconds

    def dimension(self) -> int:
        return 2

    def passages(self, texts: list[str]) -> np.ndarray:
        if "broken" in texts:
            raise UserError("a text that no encoder takes")
        if "deadly" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with workers_path():
        made = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            yield made
        finally:
            made.shutdown()


@pytest.fixture
def second(cluster: Any) -> Callable[[], Any]:
    """Gives the second node, started if there is none."""
    return lambda: next(iter(cluster.worker_nodes), None) or cluster.add_node(**NODE)


def letters(ray: Any, said: list[str]) -> Workers:
    return Workers(ray, Letters, lambda: (0.1,), {"CPU": 1}, said.append)


def test_a_lost_nodes_batches_are_done_by_the_others_and_a_node_that_joins_is_used(cluster: Any, second: Callable[[], Any]) -> None:
    node, said, found, given = second(), list[str](), dict[int, np.ndarray](), list[list[str]]()
    killed: list[int] = []

    def batches() -> Iterator[list[str]]:
        """As many as it takes for both workers to be at work, and 60 after one was killed; every third is empty."""
        while len(given) < 3000 and len(given) < (killed[0] + 60 if killed else 3000):
            n = len(given)
            given.append([chr(97 + n % 26) * (1 + n % 50)] * (n % 3))
            yield given[-1]

    with ray_session(cluster.address, said.append) as ray:
        workers = letters(ray, said)
        for number, vectors in workers.map(batches()):
            assert number not in found
            found[number] = vectors
            if not killed and sum("is ready" in line for line in said) == 2:
                killed.append(len(given))
                cluster.remove_node(node, allow_graceful=False)
        assert killed
        assert any("worker 2 is gone" in line or "worker 1 is gone" in line for line in said)
        assert sorted(found) == list(range(killed[0] + 60))
        for number, texts in enumerate(given):
            assert found[number].tolist() == [[len(text), ord(text[0])] for text in texts]
        second()

        def third_is_there() -> bool:
            return any("is ready; 2 of" in line for line in said[-1:])

        again = dict(workers.map(["x"] for _ in itertools.takewhile(lambda n: not third_is_there(), range(1200))))
        assert 2 < len(again) < 1200 and sum("is ready" in line for line in said) == 3
        workers.close()


def test_an_encoder_that_reuses_vectors_asks_the_workers_for_the_rest(cluster: Any, second: Callable[[], Any]) -> None:
    from curriculum.ingest.vectors import KnownVectors, Reusing

    second()
    with ray_session(cluster.address, lambda line: None) as ray:
        workers = letters(ray, [])  # not asked yet: how long a vector is, their first answer says, while batches are being handed out
        reusing = Reusing(workers, KnownVectors(None))
        found = dict(reusing.map([["a", "bc"], [], ["def"]]))
        workers.close()
    assert {number: vectors.tolist() for number, vectors in found.items()} == {0: [[1, 97], [2, 98]], 1: [], 2: [[3, 100]]}
    assert (reusing.encoded, reusing.reused) == (3, 0)


def test_what_a_worker_raises_is_raised_here_and_a_deadly_batch_is_named(cluster: Any, second: Callable[[], Any]) -> None:
    second()
    with ray_session(cluster.address, lambda line: None) as ray:
        workers = letters(ray, [])
        with pytest.raises(UserError, match="a text that no encoder takes"):
            dict(workers.map([["a"], ["broken"], ["c"]]))
        assert workers.passages(["abc"]).tolist() == [[3, 97]]  # and what was in hand then is not mixed with this
        with pytest.raises(UserError, match="batch 0 of the passages ended 3 workers"):
            dict(workers.map([["deadly"]]))
        workers.close()


def test_a_worker_that_cannot_be_made_and_a_cluster_that_is_not_there_are_errors(cluster: Any) -> None:
    with ray_session(cluster.address, lambda line: None) as ray:
        workers = Workers(ray, Letters, lambda: (-1.0,), {"CPU": 1}, lambda line: None)
        with pytest.raises(UserError, match="could not be made: .*seconds are not negative"):
            workers.passages(["abc"])
        workers.close()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError, match=r"no Ray cluster answers at .*nowhere.* set compute\.ray_address"), ray_session("nowhere::", print):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


_WORDS = "harbour lantern orchard granite willow saddle copper meadow thunder velvet compass anchor ember quarry timber falcon".split()


def texts() -> dict[str, str]:
    """Short passages of some words each, no two alike."""
    rng = np.random.default_rng(0)
    return {f"p{n:04d}": f"{n} " + " ".join(rng.choice(_WORDS, size=int(rng.integers(4, 12)))) for n in range(PASSAGES)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The passages encoded in this process: what every run on the cluster must give."""
    from curriculum.cluster.encoding import encoder_on
    from curriculum.hardware import ComputeSettings
    from curriculum.retrieval import dense
    from curriculum.retrieval.settings import RetrievalSettings
    from curriculum.sources import model_folder
    from tests.retrieval.small import table

    patched = pytest.MonkeyPatch()
    patched.setattr(dense, "SHARD", SHARD)
    settings, folder = RetrievalSettings(max_tokens=32), tmp_path_factory.mktemp("ray")
    model, passages = model_folder(settings.encoder, folder), table(texts())

    def embed(name: str, kept: Path, compute: ComputeSettings, watch: Callable[[str], None]) -> tuple[Any, float]:
        (folder / name).mkdir()
        kept.mkdir(exist_ok=True)
        begun = time.perf_counter()
        with encoder_on(model, settings, "cpu", compute, watch) as encoder:
            return dense.embed_passages(passages, encoder, settings, folder / name, kept, watch), time.perf_counter() - begun

    artifact, seconds = embed("alone", folder / "kept", ComputeSettings(threads=1), lambda line: None)
    print(f"\none process: {PASSAGES} passages in {seconds:.1f} s")
    yield {"folder": folder, "artifact": artifact, "embed": embed, "model": model, "passages": passages}
    patched.undo()


def same_as_alone(artifact: Any, made: dict[str, Any]) -> None:
    """The vectors are equal to 1e-5 in their order, and the indexes give the same first ten."""
    from curriculum.retrieval.dense import DenseIndex, build_dense, load_file

    both = [load_file(a.path / "project" / "vectors.safetensors")["vectors"].numpy() for a in (made["artifact"], artifact)]
    assert both[0].shape == both[1].shape == (PASSAGES, 384)
    difference = float(np.abs(both[0] - both[1]).max())
    print(f"largest difference {difference:.2e}")
    assert difference < 1e-5
    assert np.abs(both[0] - np.roll(both[1], SHARD, axis=0)).max() > 0.1  # shards in another order would be seen
    assert json.loads((artifact.path / "project" / "ids.json").read_text()) == made["passages"]["passage_id"].tolist()
    hits = []
    for each in (made["artifact"], artifact):
        index = each.path.with_suffix(".index")
        if not index.exists():
            build_dense(each, index)
        hits.append(DenseIndex(index).search(both[0][::37], 10))
    assert [[pid for pid, _ in each] for each in hits[0]] == [[pid for pid, _ in each] for each in hits[1]]


def test_vectors_are_those_of_one_process_though_a_node_is_killed_half_way(cluster: Any, second: Callable[[], Any], made: dict[str, Any]) -> None:
    from curriculum.hardware import ComputeSettings

    node, said, kept = second(), list[str](), made["folder"] / "kept on ray"
    compute = ComputeSettings(threads=1, engine="ray", ray_address=cluster.address)

    def watch(line: str) -> None:
        said.append(line)
        print(line)
        if line == f"project: {PASSAGES // 2}/{PASSAGES} passages":
            assert sum("is ready" in each for each in said) == 2, "the second worker never worked: the test would kill an idle node"
            cluster.remove_node(node, allow_graceful=False)

    artifact, seconds = made["embed"]("on ray", kept, compute, watch)
    print(f"two nodes, one killed: {seconds:.1f} s")
    assert any("is gone" in line for line in said) and not cluster.worker_nodes
    same_as_alone(artifact, made)
    files = {file: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert len(files) == PASSAGES // SHARD

    said.clear()
    again, seconds = made["embed"]("again", kept, compute, said.append)
    print(f"again: {seconds:.1f} s")
    assert not any("is ready" in line for line in said), "nothing is to be computed, so no worker is started"
    assert {file: file.stat().st_mtime_ns for file in kept.iterdir()} == files
    same_as_alone(again, made)

    spoilt = sorted(files)[7]
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"\x55")
    repaired, _ = made["embed"]("repaired", kept, compute, said.append)
    assert {file for file in kept.iterdir() if file.stat().st_mtime_ns != files[file]} == {spoilt}
    same_as_alone(repaired, made)


_DRIVER = """
import sys
from pathlib import Path
from tests.e2e import test_ray as here
from curriculum.hardware import ComputeSettings
from curriculum.cluster.encoding import encoder_on
from curriculum.retrieval import dense
from curriculum.retrieval.settings import RetrievalSettings
from tests.retrieval.small import table
dense.SHARD = here.SHARD
out, kept, model, address = sys.argv[1:]
settings = RetrievalSettings(max_tokens=32)
with encoder_on(Path(model), settings, "cpu", ComputeSettings(threads=1, engine="ray", ray_address=address), print) as encoder:
    dense.embed_passages(table(here.texts()), encoder, settings, Path(out), Path(kept), print)
"""


def test_a_driver_killed_half_way_is_taken_up_by_a_run_without_a_cluster(cluster: Any, second: Callable[[], Any], made: dict[str, Any]) -> None:
    from curriculum.hardware import ComputeSettings

    second()
    kept, out = made["folder"] / "kept by the killed", made["folder"] / "killed"
    kept.mkdir()
    with workers_path():
        told = [str(out), str(kept), str(made["model"]), cluster.address]
        driver = subprocess.Popen([sys.executable, "-c", _DRIVER, *told], cwd=ROOT, env=dict(os.environ))
        while len(list(kept.glob("*.safetensors"))) < PASSAGES // SHARD // 2:
            assert driver.poll() is None, "it ended by itself"
            time.sleep(0.05)
        driver.kill()
        driver.wait()
    files = {file: file.stat().st_mtime_ns for file in kept.glob("*.safetensors")}
    assert PASSAGES // SHARD // 2 <= len(files) < PASSAGES // SHARD
    artifact, _ = made["embed"]("taken up", kept, ComputeSettings(threads=1), print)
    assert all(file.stat().st_mtime_ns == before for file, before in files.items())
    same_as_alone(artifact, made)


def test_codes_made_on_the_cluster_are_those_of_one_process(cluster: Any, second: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    from curriculum.cluster.indexing import codes_by
    from curriculum.hardware import ComputeSettings
    from curriculum.vector_search import parts
    from curriculum.vector_search.kinds import build
    from curriculum.vector_search.settings import VectorSearchSettings

    second()
    monkeypatch.setattr(parts.add_by_parts, "__defaults__", (parts.here, 400))
    vectors, said = np.random.default_rng(0).standard_normal((3000, 32)).astype(np.float32), list[str]()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    settings = VectorSearchSettings(code_bytes=8, cells_factor=0.3)
    codes = codes_by(ComputeSettings(engine="ray", ray_address=cluster.address), said.append)
    both = [build("ivf_pq_rescored", vectors, settings, codes=each) for each in (None, codes)]
    assert said[-1] == "codes of 8 parts of the vectors"
    np.testing.assert_array_equal(*(faiss.serialize_index(each.index) for each in both))
