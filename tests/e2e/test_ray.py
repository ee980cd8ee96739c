"""Encoding on a local Ray cluster of two nodes, one of which is killed half-way. Needs ray: `make ray`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from curriculum.cluster.session import load_ray, ray_session, workers_path
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
    node, said, found = second(), list[str](), dict[int, np.ndarray]()
    batches = [[chr(97 + n % 26) * (1 + n)] * (n % 3) for n in range(90)]  # every third is empty
    with ray_session(cluster.address, said.append) as ray:
        workers = letters(ray, said)
        for number, vectors in workers.map(batches):
            assert number not in found
            found[number] = vectors
            if len(found) == 40:
                assert sum("is ready" in line for line in said) == 2
                cluster.remove_node(node, allow_graceful=False)
        assert any("worker 2 is gone" in line or "worker 1 is gone" in line for line in said)
        assert sorted(found) == list(range(90))
        for number, texts in enumerate(batches):
            assert found[number].tolist() == [[len(text), ord(text[0])] for text in texts]
        second()
        again = dict(workers.map([["x" * n] for n in range(1, 80)]))
        assert len(again) == 79 and sum("is ready; 2 of 2 are" in line for line in said) == 2
        workers.close()


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
        workers = Workers(ray, Letters, lambda: (), {"CPU": 1}, lambda line: None)
        with pytest.raises(UserError, match=r"could not be made: .*seconds"):
            workers.passages(["abc"])
        workers.close()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError, match=r"no Ray cluster answers at .*nowhere.* set compute\.ray_address"), ray_session("nowhere::", print):
        pass
    assert signal.getsignal(signal.SIGTERM) is before
