"""The reranker: what it trains on, how it blends, what it gains, and nDCG as trec_eval has it."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curriculum.crossencoder.model import CrossEncoder
from curriculum.errors import DataError
from curriculum.grounding.similarity import containment
from curriculum.reranking.mining import TrainingQuery, inverse_cloze_queries, judged_queries, mine
from curriculum.reranking.report import report_reranking
from curriculum.reranking.reranker import Reranker, blend, passage_texts
from curriculum.reranking.scoring import ndcg_at_10, scale
from curriculum.reranking.settings import RerankerSettings
from curriculum.reranking.training import WEIGHTS, choose_weight, split_dev, train_reranker
from tests.crossencoder.tiny import tiny_bert

torch.set_num_threads(1)
SETTINGS = RerankerSettings(
    max_length=32, steps=60, batch_size=6, learning_rate=3e-3, head_learning_rate=3e-3, self_supervised_queries=10, negatives=2,
    mining_depth=8, depth=8, report_queries=20, tuning_share=0.4,
)  # fmt: skip
ANIMALS = ["cat", "dog", "horse", "mouse", "sheep", "goat", "duck", "bear", "wolf", "hare"]
COLOURS = ["red", "green", "blue", "black"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"), [*ANIMALS, *COLOURS, *"the is find not it lives in a house by river page".split()])


def passages() -> pd.DataFrame:
    rows = []
    for animal in ANIMALS:
        for colour in COLOURS:
            text = f"The {animal} is {colour}. It lives in a house by the river."
            own = {"passage_id": f"{animal}-{colour}", "doc_id": animal, "title": f"Page {animal}", "text": text}
            rows.append({**own, "collection": "project", "position": 0})
    return pd.DataFrame(rows)


def tracks() -> pd.DataFrame:
    """A query names an animal; only its red passage is relevant, which word overlap cannot know."""
    rows = []
    for i, animal in enumerate(ANIMALS):
        for n, query in enumerate((f"find {animal}", f"the {animal}", f"{animal} page")):
            own = {"track": "animals", "collection": "project", "query_id": f"{animal}/{n}", "query": query, "kind": ""}
            rows.append({**own, "split": "dev" if i < 7 else "test", "relevant_ids": [f"{animal}-red"], "grades": [2], "doc_ids": [animal]})
    return pd.DataFrame(rows)


class WordSearch:
    """First stage by shared words: every colour of the right animal ties, in an order that puts red last."""

    def __init__(self) -> None:
        table = passages().iloc[::-1]
        self.ids, self.texts = table["passage_id"].tolist(), table["text"].tolist()

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, list[list[tuple[str, float]]]]:
        return {"bm25": self.search(queries, k, collection), "dense": self.search(queries, k // 2, collection)}

    def search(self, queries: list[str], k: int, collection: str = "project") -> list[list[tuple[str, float]]]:
        found = []
        for query in queries:
            scores = containment([(text, query) for text in self.texts])
            found.append([(self.ids[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:k]])
        return found


def test_trained_reranker_beats_the_first_stage_on_unseen_queries(bert: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    artifact = train_reranker(
        passages(), tracks(), SETTINGS, retriever=WordSearch(), model=bert, out=tmp_path / "out", checkpoints=tmp_path / "ck",
        progress=lines.append,
    )  # fmt: skip
    assert artifact.facts["tuning_queries"] == 9 and artifact.facts["weight"] in WEIGHTS and artifact.facts["weight"] > 0
    reranker = Reranker.load(artifact.path)
    assert reranker.weight == artifact.facts["weight"]
    result = report_reranking(reranker, passages(), tracks(), SETTINGS, retriever=WordSearch(), progress=lines.append)
    gain = result.metric("ndcg_gain")
    assert gain is not None and gain.n == 9 and gain.low is not None and gain.low > 0
    assert result.value("ndcg_gain") == pytest.approx(result.value("ndcg_at_10") - result.value("ndcg_at_10__hybrid"))
    assert result.value("ndcg_at_10__animals") == result.value("ndcg_at_10")
    assert result.value("latency_p95_ms") >= result.value("latency_p50_ms") > 0
    assert result.remarks[0].startswith("Reranking helps") and result.plots["gain"].startswith(b"\x89PNG")
    assert result.per_example["example_id"].is_unique and len(result.tables["by_track"]) == 1


def test_no_document_is_trained_on_and_tuned_on() -> None:
    dev = tracks()[tracks()["split"] == "dev"]
    tuning, training = split_dev(dev, SETTINGS, seed=0)
    sides = [{ids[0] for ids in part["doc_ids"]} for part in (tuning, training)]
    assert sides[0] and sides[1] and not sides[0] & sides[1] and len(tuning) + len(training) == len(dev)
    assert len(split_dev(dev, SETTINGS.model_copy(update={"tuning_queries": 4}), seed=0)[0]) == 4


def test_a_weight_must_beat_the_first_stage_by_more_than_chance() -> None:
    first = np.array([0.5, 0.5, 0.5, 0.5])
    assert choose_weight({0.0: first, 0.5: np.array([1.0, 0.1, 1.0, 0.1])}) == 0.0  # better on average, yet by no more than noise
    assert choose_weight({0.0: first, 0.5: first + 0.1, 1.0: first - 0.2}) == 0.5
    assert choose_weight({0.0: np.array([0.2]), 0.5: np.array([0.4])}) == 0.5  # one query has no error to go by


def test_an_untrained_reranker_is_not_called_a_gain(bert: Path) -> None:
    reranker = Reranker(CrossEncoder.start(bert, max_length=32, seed=0), weight=0.0)
    result = report_reranking(reranker, passages(), tracks(), SETTINGS, retriever=WordSearch(), progress=print)
    assert result.value("ndcg_gain") == 0.0 and result.remarks[0].startswith("No gain is shown")
    rows = result.per_example
    alone = (rows["ndcg_at_10__alone"] - rows["ndcg_at_10__hybrid"]).mean()
    assert result.value("ndcg_gain_alone") == pytest.approx(alone) and alone != 0, "at weight 0 the cross-encoder is measured by itself"
    assert "By the cross-encoder's order alone" in result.remarks[1] and "no weight was better" in result.remarks[1]


def test_mining_skips_relevant_passages_and_near_duplicates() -> None:
    texts = passage_texts(passages())
    query = TrainingQuery("cat", "project", texts["cat-red"], frozenset({"cat-red"}))
    options = {"negatives": 2, "depth": 8, "rng": random.Random(0)}
    groups = mine([query], WordSearch(), texts, near_duplicate=0.95, **options)
    (first, positive), *rest = groups[0].pairs
    assert first == "cat" and positive == texts["cat-red"] and groups[0].labels == (1.0, 0.0, 0.0)
    assert all(text != positive for _, text in rest)
    with pytest.raises(DataError, match="enough negatives"):  # the passages differ by a word or two: all count as duplicates
        mine([query], WordSearch(), texts, near_duplicate=0.3, **options)


def test_training_queries_stay_off_held_out_passages() -> None:
    rng = random.Random(0)
    held_out = frozenset(passages()["passage_id"]) - {"cat-red", "dog-blue"}
    queries = inverse_cloze_queries(passages(), held_out, 10, rng)
    assert {next(iter(q.relevant)) for q in queries} == {"cat-red", "dog-blue"}
    for query in queries:
        assert query.query not in query.positive and query.positive.startswith("Page")
    judged = judged_queries(tracks(), passage_texts(passages()), rng)
    assert len(judged) == len(tracks()) and all("red" in q.positive for q in judged)
    assert judged_queries(tracks(), {}, rng) == []


def test_ndcg_against_known_values() -> None:
    judged = {"q": {"a": 2, "b": 1}, "empty": {"a": 1}}
    perfect = 2 / np.log2(2) + 1 / np.log2(3)
    swapped = 1 / np.log2(2) + 2 / np.log2(3)
    scores = ndcg_at_10({"q": [("b", 0.5), ("a", 0.5)]}, judged)
    assert scores["q"] == pytest.approx(swapped / perfect, abs=1e-6) and scores["empty"] == 0.0
    assert ndcg_at_10({"q": [("a", 0.0), ("b", 0.0)]}, judged)["q"] == pytest.approx(1.0)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.floats(0, 1))
def test_blend_is_a_permutation_and_its_ends_are_the_two_orders(logits: list[float], weight: float) -> None:
    ranking = [(f"p{i:02d}", float(len(logits) - i)) for i in range(len(logits))]
    mixed = blend(ranking, np.array(logits), weight)
    assert sorted(p for p, _ in mixed) == sorted(p for p, _ in ranking)
    assert all(a[1] >= b[1] for a, b in itertools.pairwise(mixed)) and all(0 <= s <= 1 + 1e-9 for _, s in mixed)
    assert [p for p, _ in blend(ranking, np.array(logits), 0.0)] == [p for p, _ in ranking]
    by_logit = [p for p, _ in blend(ranking, np.array(logits), 1.0)]
    scaled = dict(zip((p for p, _ in ranking), scale(logits), strict=True))
    assert all(scaled[a] >= scaled[b] for a, b in itertools.pairwise(by_logit))


def test_missing_parts_are_named(bert: Path, tmp_path: Path) -> None:
    reranker = Reranker(CrossEncoder.start(bert, max_length=32, seed=0))
    with pytest.raises(DataError, match="cat-red"):
        reranker.rerank(["cat"], [[("cat-red", 1.0)]], {})
    assert reranker.rerank([], [], {}) == []
    for split, call in (("dev", "train"), ("test", "report")):
        other = tracks()[tracks()["split"] != split]
        with pytest.raises(DataError, match=f"split '{split}'"):
            if call == "train":
                train_reranker(
                    passages(), other, SETTINGS, retriever=WordSearch(), model=bert, out=tmp_path, checkpoints=tmp_path, progress=print
                )
            else:
                report_reranking(reranker, passages(), other, SETTINGS, retriever=WordSearch(), progress=print)
