"""The service searches with promoted search settings where they fit its index, and as the profile says where they do not."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from curriculum.results import Metric, StudyResult
from curriculum.search_tuning.chosen import write_chosen
from curriculum.search_tuning.settings import SearchSetting
from curriculum.storage import ArtifactStore
from tests.serving.small import publish

Make = Callable[..., TestClient]
TUNED = SearchSetting(passage_words=90, fusion="rsf", dense_weight=0.0, depth=3, k1=1.7, b=0.9, rerank_depth=0)


def promote(store: ArtifactStore, version: str, setting: SearchSetting) -> str:
    """Promote ``setting`` as the asset writes it; the promoted version's name."""
    gain = Metric(name="test_gain", value=0.03, low=0.01, high=0.05, n=80)
    study, facts = StudyResult(study="search_tuning_study", metrics=[gain], settings={"chosen": setting.model_dump(mode="json")}), {}
    made = publish(store, "search_settings", version, lambda out: facts.update(write_chosen(study, out).facts))
    return store.refer("promoted_search_settings", made, facts).version


def test_promoted_settings_are_put_in_force_and_named(client: Make, store: ArtifactStore) -> None:
    web = client(store=store)
    health = web.get("/healthz").json()
    assert "promoted_search_settings" not in health["versions"]
    assert (health["search"]["fusion"], health["search"]["k1"], health["search"]["rerank_depth"]) == ("rsf", 0.9, 20)
    served = web.service.served
    before, plain = served.bundle, web.post("/search", json={"query": "red tower"}).json()["passages"]
    version = promote(store, "s1", TUNED)
    assert served.refresh() and served.swaps == 1
    health, tuned = web.get("/healthz").json(), web.post("/search", json={"query": "red tower"}).json()["passages"]
    assert health["versions"]["promoted_search_settings"] == version and SearchSetting(**health["search"]) == TUNED
    assert served.bundle.passages is before.passages and served.bundle.reranker is before.reranker
    assert {p["scores"]["reranker"] for p in tuned} == {None} and None not in {p["scores"]["reranker"] for p in plain}
    lexical = [{p["passage_id"]: p["scores"]["bm25"] for p in found}["project/tower#0"] for found in (plain, tuned)]
    assert None not in lexical and lexical[0] != lexical[1]  # Lucene weighs by the new k1 and b
    expected = served.bundle.retriever.search(["red tower"], 10)[0]
    assert [(p["passage_id"], p["scores"]["fused"]) for p in tuned] == expected and len(before.retriever.search(["red tower"], 10)[0]) == len(plain)


@pytest.mark.parametrize(
    ("setting", "profile", "said"),
    [
        (TUNED.model_copy(update={"passage_words": 60}), {}, "they are for passages of 60 words and the index has 90"),
        (TUNED, {"retrieval": {"passage_words": 140}}, "they are for passages of 90 words and the index has 140"),
        (TUNED, {"serving": {"tuned_search": False}}, ""),
    ],
)
def test_settings_of_another_chunking_or_switched_off_are_not_applied(
    client: Make, store: ArtifactStore, caplog: pytest.LogCaptureFixture, setting: SearchSetting, profile: dict[str, dict[str, object]], said: str
) -> None:
    promote(store, "s1", setting)
    with caplog.at_level(logging.WARNING):
        web = client(store=store, **profile)
    health = web.get("/healthz").json()
    assert "promoted_search_settings" not in health["versions"] and health["search"]["fusion"] == "rsf"
    lines = [record.getMessage() for record in caplog.records if "not applied" in record.getMessage()]
    assert (len(lines) == 1 and said in lines[0]) if said else not lines
    assert not web.service.served.refresh()
