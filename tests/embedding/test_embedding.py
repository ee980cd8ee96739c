"""The tuned embedder: what it trains on, how a batch is put together, resume, what it gains, and that a bad one is not promoted."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.embedding.mining import Tuple, mine_positive_aware, plan_batches
from curriculum.embedding.report import embedder_report
from curriculum.embedding.settings import EmbedderSettings
from curriculum.embedding.training import fit, mine_training_tuples, train_embedder
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.reranking.first_stage import first_stage
from curriculum.reranking.mining import TrainingQuery
from curriculum.results import StudyResult
from curriculum.retrieval.bm25 import build_bm25
from curriculum.retrieval.dense import Encoder, build_dense, embed_passages
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.syllabus import load_syllabus
from tests.crossencoder.tiny import tiny_bert

torch.set_num_threads(1)
ANIMALS = ["cat", "dog", "horse", "mouse", "sheep", "goat", "duck", "bear", "wolf", "hare", "crow", "toad"]
COLOURS = ["red", "green", "blue", "black"]
SETTINGS = EmbedderSettings(
    steps=30, batch_size=6, negatives=1, max_length=32, learning_rate=3e-3, self_supervised_queries=0, checkpoint_every=5, mining_depth=8,
    positive_share=1.0,
)  # fmt: skip
SEARCH = RetrievalSettings(known_items=0, max_tokens=32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers model with random weights and a vocabulary of whole words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    words = [*ANIMALS, *COLOURS, *"the is find not it lives in a house by river page".split()]
    bert, folder = tiny_bert(tmp_path_factory.mktemp("bert"), words), tmp_path_factory.mktemp("base")
    SentenceTransformer(modules=[Transformer(str(bert)), Pooling(32, pooling_mode="mean")], device="cpu").save_pretrained(str(folder))
    return folder


def passages() -> pd.DataFrame:
    rows = [
        {
            "passage_id": f"{animal}-{colour}", "collection": "project", "doc_id": animal, "title": "", "source": "own", "section": "",
            "text": f"The {animal} is {colour}. It lives in a house by the river.", "position": 0, "known_item_query": "",
        }
        for animal in ANIMALS for colour in COLOURS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def tracks(relevant: str = "red") -> pd.DataFrame:
    """A query names an animal; only its passage of one colour is relevant, which nothing but training can know."""
    rows = []
    for i, animal in enumerate(ANIMALS):
        for n, query in enumerate((f"find {animal}", f"the {animal}", f"{animal} page")):
            own = {"track": "animals", "collection": "project", "query_id": f"{animal}/{n}", "query": query, "kind": "", "group": animal}
            split = "dev" if i < 7 else "test"
            rows.append({**own, "split": split, "relevant_ids": [f"{animal}-{relevant}"], "grades": [2], "doc_ids": [animal]})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def indexes(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in ("bm25", "vectors", "dense", "kept")}
    build_bm25(passages(), SEARCH, made["bm25"])
    build_dense(embed_passages(passages(), Encoder(base, SEARCH), SEARCH, made["vectors"], made["kept"], lambda _: None), made["dense"])
    return made


def trained(base: Path, indexes: dict[str, Path], out: Path, taught: pd.DataFrame, chosen: EmbedderSettings = SETTINGS) -> StudyResult:
    retriever = first_stage(indexes["bm25"], indexes["dense"], SEARCH, encoder=base)
    lines: list[str] = []
    artifact = train_embedder(
        passages(), taught, chosen, SEARCH, retriever=retriever, model=base, out=out / "model", checkpoints=out / "steps", progress=lines.append
    )
    assert 0 < artifact.facts["training_queries"] <= 21 and lines[-1].startswith(f"step {chosen.steps}/{chosen.steps}")
    return embedder_report(
        passages(), tracks(), SEARCH, bm25=indexes["bm25"], dense=indexes["dense"], base=base, tuned=artifact.path,
        checkpoints=out / "shards", progress=lines.append,
    )  # fmt: skip


def verdict(result: StudyResult) -> Verdict:
    bar = next(c for c in load_syllabus().claims if c.asset == "embedder_report")
    return judge_value(bar, result).verdict


def test_a_tuned_encoder_that_learnt_the_task_passes_its_gate(base: Path, indexes: dict[str, Path], tmp_path: Path) -> None:
    result = trained(base, indexes, tmp_path, tracks())
    gain = result.metric("ndcg_gain")
    assert gain is not None and gain.n == 5 and gain.low is not None and gain.low > 0  # five test animals: phrasings are no units
    assert result.value("ndcg_gain_lower") == gain.low and verdict(result) is Verdict.PASSED
    before, after = result.value("ndcg_at_10__dense__untuned"), result.value("ndcg_at_10__dense")
    assert gain.value == pytest.approx(after - before) and result.remarks[0].startswith("Tuning helps")
    assert result.plots["gain"].startswith(b"\x89PNG") and set(result.tables["by_track"]["system"]) == {"dense", "hybrid"}


def test_one_taught_the_wrong_passages_is_refused(base: Path, indexes: dict[str, Path], tmp_path: Path) -> None:
    taught = tracks("black")
    result = trained(base, indexes, tmp_path, taught)
    assert verdict(result) is Verdict.FAILED and not result.remarks[0].startswith("Tuning helps")


def test_an_untuned_encoder_is_no_gain(base: Path, indexes: dict[str, Path], tmp_path: Path) -> None:
    result = embedder_report(
        passages(), tracks(), SEARCH, bm25=indexes["bm25"], dense=indexes["dense"], base=base, tuned=base,
        checkpoints=tmp_path, progress=lambda _: None,
    )  # fmt: skip
    assert result.value("ndcg_gain") == 0.0 and verdict(result) is Verdict.FAILED and result.remarks[0].startswith("No gain is shown")


def test_a_killed_run_resumes_with_the_same_weights(base: Path, indexes: dict[str, Path], tmp_path: Path) -> None:
    retriever = first_stage(indexes["bm25"], indexes["dense"], SEARCH, encoder=base)
    tuples = mine_training_tuples(passages(), tracks(), SETTINGS, SEARCH, retriever=retriever, model=base, seed=0, device="cpu").tuples
    short = SETTINGS.model_copy(update={"steps": 12})

    def stop(line: str) -> None:
        if line.startswith("step 10/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tuples, short, SEARCH, model=base, checkpoints=tmp_path / "a", progress=stop, seed=0, device="cpu")
    lines: list[str] = []
    resumed, losses = fit(tuples, short, SEARCH, model=base, checkpoints=tmp_path / "a", progress=lines.append, seed=0, device="cpu")
    whole, straight = fit(tuples, short, SEARCH, model=base, checkpoints=tmp_path / "b", progress=lines.append, seed=0, device="cpu")
    assert lines[0] == "resumed at step 10/12" and losses == straight
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True))


def test_the_first_loss_is_cross_entropy_over_scaled_cosines(base: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = passages()["text"].tolist()
    tuples = [Tuple(f"find {animal}", texts[4 * i], (texts[4 * i + 1],), frozenset({animal})) for i, animal in enumerate(ANIMALS[:4])]
    one = SETTINGS.model_copy(update={"steps": 1, "batch_size": 4})
    no_dropout = SentenceTransformer(str(base), device="cpu")
    no_dropout[0].auto_model.config.hidden_dropout_prob = no_dropout[0].auto_model.config.attention_probs_dropout_prob = 0.0
    no_dropout.save_pretrained(str(tmp_path / "plain"))
    _, losses = fit(tuples, one, SEARCH, model=tmp_path / "plain", checkpoints=tmp_path, progress=lambda _: None, seed=0, device="cpu")
    order = [tuples[i] for i in plan_batches(tuples, 4, 1, 0)[0]]
    encoder = Encoder(tmp_path / "plain", SEARCH)
    queries = torch.from_numpy(encoder.queries([t.query for t in order]))
    documents = torch.from_numpy(encoder.passages([t.positive for t in order] + [t.negatives[0] for t in order]))
    wanted = torch.nn.functional.cross_entropy(one.scale * queries @ documents.T, torch.arange(4))
    assert losses[0] == pytest.approx(float(wanted), abs=1e-4)


class Known:
    """An encoder and a first stage in one: every text has the angle that it is made of."""

    @staticmethod
    def _unit(texts: list[str]) -> np.ndarray:
        angles = np.array([float(t) for t in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    queries = passages = _unit

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, list[list[tuple[str, float]]]]:
        return {"bm25": [[("own", 9.0), ("near", 8.0)] for _ in queries], "dense": [[("hard", 1.0), ("far", 0.5), ("gone", 0.1)] for _ in queries]}


def test_negatives_are_hard_but_not_as_near_as_the_positive() -> None:
    texts = {"own": "0.5", "near": "0.4", "hard": "0.9", "far": "1.5"}
    query = TrainingQuery("0.0", "project", texts["own"], frozenset({"own"}))
    how = {"negatives": 2, "depth": 5, "rng": random.Random(0)}
    mined = mine_positive_aware([query], Known(), Known(), texts, positive_share=0.95, **how)
    assert set(mined.tuples[0].negatives) == {"0.9", "1.5"} and (mined.candidates, mined.too_near) == (3, 1)
    with pytest.raises(DataError, match="embedder.negatives"):
        mine_positive_aware([query], Known(), Known(), texts, positive_share=0.5, **how)


def test_test_queries_and_their_passages_are_not_trained_on(base: Path, indexes: dict[str, Path]) -> None:
    retriever = first_stage(indexes["bm25"], indexes["dense"], SEARCH, encoder=base)
    own = SETTINGS.model_copy(update={"self_supervised_queries": 100})
    found = mine_training_tuples(passages(), tracks(), own, SEARCH, retriever=retriever, model=base, seed=0, device="cpu").tuples
    held = {f"{animal}-red" for animal in ANIMALS[7:]}
    assert not any(t.relevant & held for t in found) and {t.query for t in found} & {"find cat"} and not {t.query for t in found} & {"find toad"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.integers(0, 8), min_size=1, max_size=3), min_size=2, max_size=30), st.integers(2, 6), st.integers(1, 12))
def test_no_batch_holds_two_queries_of_one_passage(groups: list[set[int]], size: int, steps: int) -> None:
    tuples = [Tuple(str(i), "", (), frozenset(map(str, ids))) for i, ids in enumerate(groups)]
    try:
        plan = plan_batches(tuples, size, steps, seed=1)
    except DataError:
        assert all(a & b for i, a in enumerate(groups) for b in groups[i + 1 :])
        return
    assert len(plan) == steps and plan == plan_batches(tuples, size, steps, seed=1)
    for batch in plan:
        ids = [p for i in batch for p in tuples[i].relevant]
        assert 2 <= len(batch) <= size and len(ids) == len(set(ids))
