"""Searching: the scores of each leg, the same order as the measured pipeline, and every mistake one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from curriculum.errors import IntegrityError, UserError
from curriculum.serving.bundle import Bundles
from curriculum.storage import ArtifactStore
from tests.serving.small import TEXTS, profile

Make = Callable[..., TestClient]


def test_a_search_gives_passages_with_the_scores_of_each_leg_and_the_time_of_each_stage(client: Make) -> None:
    web = client()
    found = web.get("/search", params={"query": "when was the red tower built", "count": 3}).json()
    assert [p["rank"] for p in found["passages"]] == [1, 2, 3]
    by_id = {p["passage_id"]: p for p in found["passages"]}
    tower = by_id["project/tower#0"]
    assert tower["text"] == TEXTS["project/tower#0"] and tower["title"] == "Note"
    assert tower["scores"]["bm25"] > 0 and -1 <= tower["scores"]["dense"] <= 1.001 and tower["scores"]["reranker"] is not None
    assert any(p["scores"]["bm25"] is None for p in by_id.values())  # the dense leg finds passages without a common word
    assert set(found["milliseconds"]) == {"bm25", "dense", "fuse", "rerank", "total"}
    assert 0 < sum(v for k, v in found["milliseconds"].items() if k != "total") <= found["milliseconds"]["total"]
    assert found["versions"] == {
        "promoted_index": "search_index-i1", "promoted_reranker": "reranker-r1", "promoted_verifier": "support_verifier-v1",
    }  # fmt: skip
    assert web.post("/search", json={"query": "when was the red tower built", "count": 3}).json()["passages"] == found["passages"]


@pytest.mark.parametrize("query", ["red tower", "a list and an error", "🐕 naïve\u0000 blue", "?!", "x " * 400])
def test_the_order_is_that_of_the_pipeline_which_is_measured(client: Make, query: str) -> None:
    web = client()
    bundle = web.service.served.bundle
    candidates = bundle.retriever.search([query], 20)
    expected = bundle.reranker.rerank([query], candidates, bundle.texts)[0]
    found = web.post("/search", json={"query": query}).json()["passages"]
    assert [p["passage_id"] for p in found] == [passage for passage, _ in expected]
    assert [p["scores"]["final"] for p in found] == pytest.approx([score for _, score in expected])
    assert [p["scores"]["fused"] for p in found] == [dict(candidates[0])[p["passage_id"]] for p in found]


def test_what_is_past_the_reranked_depth_follows_in_the_order_of_the_fusion(client: Make) -> None:
    web = client(rag={"depth": 2})
    found = web.post("/search", json={"query": "red tower", "count": 5}).json()["passages"]
    fused = [p for p, _ in web.service.served.bundle.retriever.search(["red tower"], 5)[0]]
    assert {p["passage_id"] for p in found[:2]} == set(fused[:2]) and [p["passage_id"] for p in found[2:]] == fused[2:]
    assert all(p["scores"]["reranker"] is None for p in found[2:])


def test_the_reranker_is_rounded_only_where_the_profile_asks_for_it(client: Make) -> None:
    found = {
        precision: {
            p["passage_id"]: p["scores"]["reranker"]
            for p in client(serving={"reranker_precision": precision}).post("/search", json={"query": "red tower"}).json()["passages"]
        }
        for precision in ("float32", "bfloat16")
    }
    assert found["bfloat16"].keys() == found["float32"].keys() and found["bfloat16"] != found["float32"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.05, abs=0.01)


def test_a_mistake_is_422_with_one_message_that_repeats_nothing(client: Make) -> None:
    web = client(serving={"max_query_chars": 50})
    for sent, said in (
        ({"query": "secret " * 10}, "query: String should have at most 50 characters"), ({"query": ""}, "query: String should have at least"),
        ({}, "query: Field required"), ({"query": "x", "count": 51}, "count: Input should be less than or equal to 50"),
        ({"query": "x", "more": 1}, "more: Extra inputs"),
    ):  # fmt: skip
        for answer in (web.post("/search", json=sent), web.get("/search", params=sent)):
            assert answer.status_code == 422 and answer.json()["detail"].startswith(said) and "secret" not in answer.text
    for body, said in ((b'{"query": "\\ud800"}', "query: Input should be a valid string"), (b"{", "body: JSON decode error"), (b"[]", "body: Input")):
        answer = web.post("/search", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422 and said in answer.json()["detail"]


def test_without_a_promotion_there_is_one_sentence_that_says_what_to_run(tmp_path: Path, encoder_folder: Path) -> None:
    bundles = Bundles(ArtifactStore(str(tmp_path)), profile(encoder_folder), lambda _: tmp_path)
    with pytest.raises(UserError, match=r"holds no promoted_index and no promoted_reranker .* run `curriculum run --profile starter` first"):
        bundles.promoted()


def test_an_index_whose_passages_are_gone_says_what_to_run(client: Make, store: ArtifactStore) -> None:
    (store.root / "passages" / "p1" / "manifest.json").unlink()
    with pytest.raises(IntegrityError, match="'passages' is gone; run `dagster asset materialize"):
        client(store=store)
