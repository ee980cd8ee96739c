"""A newly promoted version is picked up while requests go on: none fails, and each is answered by one version to its end."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from curriculum.crossencoder.model import CrossEncoder
from curriculum.evaluation.rollback import roll_back
from curriculum.reranking.reranker import Reranker
from curriculum.serving.served import Served
from curriculum.storage import ArtifactStore
from tests.crossencoder.tiny import tiny_bert
from tests.serving.conftest import Told
from tests.serving.small import events, promote

Make = Callable[..., TestClient]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def another(store: ArtifactStore, bert: Path, version: str) -> str:
    """Promote one more reranker."""
    return promote(store, "reranker", version, Reranker(CrossEncoder.start(bert, max_length=48, seed=2), weight=1.0))


def test_a_request_in_flight_ends_with_the_version_it_began_with_and_the_old_one_goes_with_it(
    client: Make, store: ArtifactStore, bert: Path, told: Told
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def held() -> Iterator[str]:
        begun.set()
        assert go_on.wait(20)
        yield "It has 7 floors."

    told.pieces = held
    web = client(store=store)
    served: Served = web.service.served
    old = weakref.ref(served.bundle.reranker)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(web.post, "/ask", json={"question": "How many floors?"})
        assert begun.wait(20)
        assert another(store, bert, "r2") == "reranker-r2" and served.refresh() and served.swaps == 1
        gc.collect()
        assert old() is not None, "the request in flight still needs it"
        assert web.post("/search", json={"query": "red"}).json()["versions"]["promoted_reranker"] == "reranker-r2"
        go_on.set()
        done = events(asked.result(20).text)[-1][1]
    assert done["answer"] == "It has 7 floors." and done["versions"]["promoted_reranker"] == "reranker-r1"
    gc.collect()
    assert old() is None
    assert web.get("/healthz").json()["versions"]["promoted_reranker"] == "reranker-r2"


def test_no_request_fails_while_versions_come_and_go(client: Make, store: ArtifactStore, bert: Path) -> None:
    web = client(store=store, serving={"poll_seconds": 0.02, "requests_per_minute": 0})
    end, answers = threading.Event(), []

    def hammer() -> None:
        while not end.is_set():
            answers.append(web.post("/search", json={"query": "red tower"}))

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(hammer)
        try:
            while len(answers) < 3:
                threading.Event().wait(0.01)
            for number, change in enumerate((lambda: another(store, bert, "r2"), lambda: roll_back(store, "promoted_reranker")), 1):
                change()
                seen = len(answers)
                for _ in range(1000):
                    if web.service.served.swaps == number and len(answers) > seen + 3:
                        break
                    threading.Event().wait(0.01)
        finally:
            end.set()
    assert web.service.served.swaps == 2 and {a.status_code for a in answers} == {200}
    used = [a.json()["versions"]["promoted_reranker"] for a in answers]
    assert used[0] == "reranker-r1" and set(used) == {"reranker-r1", "reranker-r2"}
    assert web.post("/search", json={"query": "red"}).json()["versions"]["promoted_reranker"] == "reranker-r1"
    for answer in answers:  # the scores are those of the version that is named: the two weigh the cross-encoder differently
        first = answer.json()["passages"][0]["scores"]
        assert (first["final"] == 1.0) or answer.json()["versions"]["promoted_reranker"] == "reranker-r1"


def test_what_has_not_changed_is_not_loaded_again_and_a_dropped_index_is_closed(client: Make, store: ArtifactStore, bert: Path) -> None:
    web = client(store=store)
    served = web.service.served
    before = served.bundle
    another(store, bert, "r2")
    assert served.refresh() and not served.refresh()
    assert served.bundle.retriever is before.retriever and served.bundle.verifier is before.verifier
    assert served.bundle.reranker is not before.reranker
    lexical, _ = before.retriever._open["project"]
    searcher, watched = lexical._searcher, weakref.ref(lexical)
    index = store.manifest("search_index", "i1")
    assert index is not None
    with store.staging("search_index") as staged:
        shutil.copytree(store.path(index), staged, dirs_exist_ok=True)
        made = store.publish(staged, index.model_copy(update={"version": "i2", "key": "i2"}))
    store.refer("promoted_index", made, index.facts)
    assert served.refresh() and served.bundle.retriever is not before.retriever
    assert served.bundle.reranker.weight == 1.0 and watched() is not None
    del before, lexical
    gc.collect()
    assert watched() is None
    with pytest.raises(Exception, match="closed"):
        searcher.search("red")
    assert web.post("/search", json={"query": "red"}).json()["versions"]["promoted_index"] == "search_index-i2"


def test_a_damaged_newer_version_is_not_served_and_said_so(client: Make, store: ArtifactStore, bert: Path) -> None:
    web = client(store=store)
    served = web.service.served
    another(store, bert, "r2")
    weights = store.root / "reranker" / "r2" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert not served.refresh() and "corrupted" in served.problem
    health = web.get("/healthz").json()
    assert health["versions"]["promoted_reranker"] == "reranker-r1" and "run `dagster asset materialize" in health["problem"]
    assert web.post("/search", json={"query": "red"}).status_code == 200
    assert "curriculum_swap_problem 1.0" in web.get("/metrics").text
    weights.write_bytes(whole)
    assert not served.refresh(), "it is not tried again at once"
    served._clock = lambda: float("inf")
    assert served.refresh() and served.problem == ""


def test_an_error_that_is_not_for_the_user_is_not_shown_to_one() -> None:
    class Source:
        versions = {"promoted_index": "a"}  # noqa: RUF012

        def promoted(self) -> dict[str, str]:
            return dict(self.versions)

        def load(self, versions: Any) -> Any:
            if versions["promoted_index"] == "b":
                raise RuntimeError("a path that nobody outside should see")
            return type("Empty", (), {"versions": dict(versions)})()

    served = Served(Source())
    Source.versions = {"promoted_index": "b"}
    assert not served.refresh() and served.problem == "RuntimeError: the newer version cannot be loaded"
