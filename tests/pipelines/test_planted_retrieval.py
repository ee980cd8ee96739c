"""Regressions planted in the retriever (wrong pooling) and the reranker (labels flipped): each stopped in a real run by its guardrail.

As in ``test_planted_regressions``: the assets, checks and promotions are the project's own, run well first and then with the fault.
The encoder is a small random BERT, which tells words apart as soon as it averages them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from assets.lineage import Lab, lineage_asset
from assets.reranking import reranker, reranker_report
from assets.search import bm25_index, dense_index, hybrid_search_report, passage_embeddings, search_index
from pipelines.promotions import promotions
from tests.crossencoder.tiny import tiny_bert
from tests.pipelines.test_planted_regressions import PROFILE, SYLLABUS, Guarded, errors, given, guardrails, instance, passages  # noqa: F401 - a fixture
from tests.reranking.test_reranking import ANIMALS, COLOURS
from tests.reranking.test_reranking import SETTINGS as RERANKER
from tests.reranking.test_reranking import passages as animal_passages
from tests.reranking.test_reranking import tracks as animal_tracks

if TYPE_CHECKING:
    import pandas as pd


@lineage_asset(group="test")
def retrieval_tracks(lab: Lab) -> pd.DataFrame:
    """Queries and their passages."""
    return given["tracks"]


def promoted(name: str) -> list[dg.AssetsDefinition]:
    return [asset for asset in promotions(SYLLABUS, PROFILE) if asset.key.to_user_string() == name]


def encoder(folder: Path, pooling: str) -> Path:
    """A sentence encoder as sentence-transformers stores it; ``pooling`` is mean, cls or max."""
    folder.mkdir()
    words = [*ANIMALS, *COLOURS, *"the is find not it lives in a house by river page".split()]
    tiny_bert(folder, words)
    parts = [("0", "", "sentence_transformers.models.Transformer"), ("1", "1_Pooling", "sentence_transformers.models.Pooling")]
    modules = [{"idx": int(name), "name": name, "path": path, "type": kind} for name, path, kind in parts]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    ways = {f"pooling_mode_{way}": way.startswith(pooling) for way in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **ways}))
    return folder


def coloured() -> pd.DataFrame:
    """A query of every passage, in its own words: a track of test queries alone."""
    import pandas as pd

    rows = [
        {"track": "notes", "collection": "project", "query_id": f"{animal}-{colour}", "query": f"The {animal} is {colour}", "kind": "",
         "split": "test", "relevant_ids": [f"{animal}-{colour}"], "grades": [2], "doc_ids": [animal], "group": f"{animal}-{colour}"}
        for animal in ANIMALS for colour in COLOURS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_wrong_pooling_in_the_retriever_is_stopped_by_the_regression_of_the_dense_leg(tmp_path: Path, instance: dg.DagsterInstance) -> None:  # noqa: F811
    given.update(passages=animal_passages(), tracks=coloured())
    guarded = Guarded(
        tmp_path, instance, passages, retrieval_tracks, bm25_index, passage_embeddings, dense_index, search_index, hybrid_search_report,
        *guardrails("passages", "retrieval_tracks", "hybrid_search_report"), *promoted("promoted_index"),
    )  # fmt: skip
    well, told = guarded.run(retrieval={"encoder": f"path:{encoder(tmp_path / 'mean', 'mean')}"})
    assert well and errors(told) == set()
    guarded.accept("hybrid_search_report")
    served = guarded.store.manifest("promoted_index")
    well, told = guarded.run(retrieval={"encoder": f"path:{encoder(tmp_path / 'cls', 'cls')}"})
    assert not well and "regression_ndcg_at_10__dense" in errors(told)
    assert "regression_ndcg_at_10__bm25" not in told  # the other leg is what it was
    assert guarded.store.manifest("promoted_index").version == served.version


def test_flipped_labels_in_the_rerankers_training_are_stopped_by_its_regression(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    from curriculum.reranking import training

    given.update(passages=animal_passages(), tracks=animal_tracks().assign(group=lambda rows: rows["query_id"]))
    bert = f"path:{encoder(tmp_path / 'bert', 'mean')}"
    settings = {**RERANKER.model_dump(mode="json"), "model": bert}
    guarded = Guarded(
        tmp_path, instance, passages, retrieval_tracks, bm25_index, passage_embeddings, dense_index, reranker, reranker_report,
        *guardrails("passages", "retrieval_tracks", "reranker_report"), *promoted("promoted_reranker"),
    )  # fmt: skip
    well, told = guarded.run(reranker=settings, retrieval={"encoder": bert})
    assert well and errors(told) == set()
    guarded.accept("reranker_report")
    served = guarded.store.manifest("promoted_reranker")
    mine = training.mine

    def flipped(*mined: Any, **options: Any) -> list[Any]:
        return [replace(group, pairs=(group.pairs[1], group.pairs[0], *group.pairs[2:])) for group in mine(*mined, **options)]

    monkeypatch.setattr(training, "mine", flipped)
    well, told = guarded.run(reranker={**settings, "score_batch_size": 31}, retrieval={"encoder": bert})  # a new setting: it is trained again
    assert not well and errors(told) == {"regression_ndcg_at_10"}
    assert guarded.store.manifest("promoted_reranker").version == served.version
