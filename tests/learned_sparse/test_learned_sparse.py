"""Learned sparse retrieval: SPLADE by its definition, training that resumes, an index that agrees with Lucene, and a study that sees breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings as how
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from curriculum.artifacts import IndexArtifact, ModelArtifact
from curriculum.cells import Cells
from curriculum.embedding.settings import EmbedderSettings
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.learned_sparse import index as index_module
from curriculum.learned_sparse.encoder import SparseTexts, has_head, idf, is_sparse_encoder, language_model, start_encoder
from curriculum.learned_sparse.index import ImpactIndex, SparseIndex, build_sparse_index, load_rows, rounded, save_rows, write_index
from curriculum.learned_sparse.settings import LearnedSparseSettings
from curriculum.learned_sparse.study import learned_sparse_study, untrained_dev
from curriculum.learned_sparse.systems import flops, rounding_bound, strongest
from curriculum.learned_sparse.training import flops_weight, train_sparse_encoder
from curriculum.reranking.first_stage import retriever_over
from curriculum.reranking.settings import RerankerSettings
from curriculum.results import StudyResult
from curriculum.retrieval.bm25 import build_bm25
from curriculum.retrieval.dense import Encoder, build_dense, embed_passages
from curriculum.retrieval.passages import contents
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from tests.crossencoder.tiny import tiny_bert
from tests.retrieval import animals

torch.set_num_threads(1)
SETTINGS = LearnedSparseSettings(
    head_steps=60, head_learning_rate=5e-2, start_terms=30, steps=4, batch_size=6, train_tokens=32, max_tokens=48, checkpoint_every=2,
    kept_terms=(4,), parity_queries=3, parity_passages=4, timed_queries=2,
)  # fmt: skip
MINING = EmbedderSettings(self_supervised_queries=20, mining_depth=8, positive_share=1.0)
TUNING = RerankerSettings(tuning_share=0.5, tuning_queries=6)
CLAIMS = [bar for bar in load_syllabus().claims if bar.asset == "learned_sparse_study"]
TEXTS = contents(animals.passages())


@st.composite
def matrices(draw: st.DrawFn, columns: int = 9) -> csr_matrix:
    """Weights of 1 to 6 texts over ``columns`` terms, most of them 0."""
    weight = st.one_of(st.just(0.0), st.floats(0.01, 4.0))
    rows = draw(st.lists(st.lists(weight, min_size=columns, max_size=columns), min_size=1, max_size=6))
    return csr_matrix(np.array(rows, dtype=np.float32))


@how(max_examples=40)
@drawn(matrices(), st.integers(1, 10))
def test_pruning_keeps_the_strongest_terms(rows: csr_matrix, k: int) -> None:
    kept = strongest(rows, k)
    for dense, own in zip(rows.toarray(), kept.toarray(), strict=True):
        assert np.count_nonzero(own) == min(k, np.count_nonzero(dense)) and set(own[own > 0]) <= set(dense)
        assert own.sum() == pytest.approx(np.sort(dense)[::-1][:k].sum())


@how(max_examples=40)
@drawn(matrices(), matrices(), st.integers(1, 80))
def test_flops_are_the_products_of_a_pair_and_rounding_stays_within_its_bound(queries: csr_matrix, passages: csr_matrix, scale: int) -> None:
    pairs = [np.count_nonzero((q > 0) & (p > 0)) for q in queries.toarray() for p in passages.toarray()]
    assert flops(queries, passages) == pytest.approx(np.mean(pairs))
    before = passages.toarray()
    moved = np.abs((rounded(queries, scale) @ rounded(passages, scale).T).toarray() / scale**2 - (queries @ passages.T).toarray())
    assert (moved <= rounding_bound(queries, passages, scale) + 1e-4).all() and (passages.toarray() == before).all()


def test_the_regulariser_rises_quadratically_and_then_stays() -> None:
    assert [flops_weight(step, 30, 1 / 3) for step in (0, 5, 10, 29)] == [0.0, 0.25, 1.0, 1.0]


def test_both_indexes_find_what_the_products_say_in_one_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((30, 40)) < 0.3, rng.random((30, 40)) * 3, 0).astype(np.float32)
    dense[5] = 0.0
    dense[[11, 17, 23]], dense[:, 39] = 0.0, 0.0
    dense[[11, 17, 23], 39] = 0.1  # equal and small scores, from which Lucene's searcher takes millionths
    dense[:, 7] = 1.0  # a term that stands in every passage: its idf is 0, for which pyserini would leave it out of queries
    weights = (dense[[2, 9]] * (rng.random((2, 40)) < 0.5)).astype(np.float32)
    weights[0, 7], weights[1, 7], weights[1, 39] = 2.0, 0.0, 0.04
    ids, asked = [f"p{i:02d}" for i in range(30)], csr_matrix(weights)
    write_index(tmp_path / "all", ids, csr_matrix(dense), 50)
    exact, lucene = SparseIndex(tmp_path, "all"), ImpactIndex(tmp_path, "all", 50)
    scores = weights @ dense.T
    for hits, own in zip(exact.search(asked, 5), scores, strict=True):
        assert [pid for pid, _ in hits] == [ids[i] for i in np.argsort(-own, kind="stable")[:5]] and hits[0][1] == pytest.approx(own.max(), rel=1e-5)
    whole = (rounded(asked, 50) @ rounded(csr_matrix(dense), 50).T).toarray()
    for hits, own in zip(lucene.search(asked, 30), whole, strict=True):
        assert dict(hits) == {ids[i]: float(own[i]) for i in np.flatnonzero(own)}
    assert len(lucene.search(asked, 30)[0]) == 30 and exact.scores(asked) == pytest.approx(scores, rel=1e-5)
    assert exact.search(csr_matrix((1, 40), dtype=np.float32), 5) == [[]]
    save_rows(tmp_path / "rows.safetensors", asked)
    assert (load_rows(tmp_path / "rows.safetensors") != asked).nnz == 0
    with pytest.raises(DataError, match="holds no collection 'other'"):
        SparseIndex(tmp_path, "other")


class Home:
    """Both indexes of the animals, and a BERT without a head under them."""

    def __init__(self, folder: Path) -> None:
        self.bert = tiny_bert(folder / "bert", animals.WORDS)
        self.sentence = animals.sentence_encoder(self.bert, folder / "sentence")
        self.search, self.folder = RetrievalSettings(encoder=f"path:{self.sentence}", max_tokens=96, depth=40), folder
        (folder / "checkpoints").mkdir()
        self.passages, self.tracks = animals.passages(), animals.tracks()
        vectors = embed_passages(
            self.passages, Encoder(self.sentence, self.search), self.search, folder / "vectors", folder / "checkpoints", lambda line: None
        )
        self.bm25, self.dense = build_bm25(self.passages, self.search, folder / "bm25"), build_dense(vectors, folder / "dense")
        self.retriever = retriever_over(self.bm25, self.dense, self.search, model=lambda uri: self.sentence)

    def train(self, name: str, settings: LearnedSparseSettings = SETTINGS, progress: Callable[[str], None] = lambda line: None) -> ModelArtifact:
        return train_sparse_encoder(
            self.passages, self.tracks, settings, mining=MINING, tuning=TUNING, search=self.search, retriever=self.retriever, model=self.bert,
            miner=self.sentence, out=self.folder / name, checkpoints=self.folder / "steps", progress=progress,
        )  # fmt: skip

    def study(self, encoder: ModelArtifact, index: IndexArtifact, cells: Path, lines: list[str] | None = None) -> StudyResult:
        return learned_sparse_study(
            self.passages, self.tracks, SETTINGS, retriever=self.retriever, encoder=SparseTexts(encoder.path, SETTINGS), tuning=TUNING, seed=0,
            folders={"sparse": index.path, "bm25": self.bm25.path, "dense": self.dense.path}, cells=Cells(cells, (lines or []).append),
            progress=lambda line: None,
        )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def trained(home: Home) -> ModelArtifact:
    """Trained in two runs: the first is stopped at step 2 of 4."""

    def stop(line: str) -> None:
        if "contrastive: step 2/4" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        home.train("stopped", progress=stop)
    lines: list[str] = []
    made = home.train("resumed", progress=lines.append)
    assert any("head: resumed at step 60/60" in line for line in lines) and any("contrastive: resumed at step 2/4" in line for line in lines)
    return made


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return SparseTexts(folder, SETTINGS).model.state_dict()


def test_a_stopped_training_ends_with_the_weights_it_would_have_had(home: Home, trained: ModelArtifact, tmp_path: Path) -> None:
    home_checkpoints = home.folder / "steps"
    home_checkpoints.rename(tmp_path / "aside")
    whole = home.train("whole")
    got, expected = weights_of(trained.path), weights_of(whole.path)
    assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)
    assert whole.facts["steps"] == 4 and len(whole.facts["last_losses"]) == 2


def test_a_new_head_learns_the_pieces_it_stands_over_and_starts_sparse(home: Home) -> None:
    made = home.train("head", SETTINGS.model_copy(update={"steps": 0}))
    encoder = SparseTexts(made.path, SETTINGS)
    rows, own = encoder.passages(TEXTS), encoder.own_terms(TEXTS)
    assert is_sparse_encoder(made.path) and not has_head(home.bert) and not is_sparse_encoder(home.bert)
    assert 20 <= rows.nnz / len(TEXTS) <= 40  # start_terms is 30, over some passages
    untaught = home.train("untaught", SETTINGS.model_copy(update={"steps": 0, "head_steps": 0}))
    inside = [csr_matrix(r.multiply(own)).sum() / r.sum() for r in (rows, SparseTexts(untaught.path, SETTINGS).passages(TEXTS))]
    assert inside[0] > 2 * inside[1]


def test_a_query_without_a_model_weighs_its_pieces_by_idf(home: Home, trained: ModelArtifact) -> None:
    encoder = SparseTexts(trained.path, SETTINGS)
    tokenizer = encoder.model.tokenizer
    ids = tokenizer.convert_tokens_to_ids(["cat", "the"])
    row = encoder.queries(["the cat the"]).toarray()[0]
    count = sum("cat" in text.lower().replace(".", " ").split() for text in TEXTS)
    assert set(np.flatnonzero(row)) == set(ids) and row[ids[0]] == pytest.approx(np.log1p((len(TEXTS) - count + 0.5) / (count + 0.5)), rel=1e-5)
    assert row[ids[0]] > row[ids[1]] > 0 and torch.equal(idf(TEXTS, tokenizer)[ids], torch.tensor(row[ids]))
    both = start_encoder(home.bert, TEXTS, SETTINGS.model_copy(update={"query_weights": "mlm"}), 0)
    assert torch.equal(both.encode_query("the cat").to_dense(), both.encode_document("the cat").to_dense())


def test_splade_is_log_of_one_plus_the_greatest_logit(trained: ModelArtifact) -> None:
    encoder = SparseTexts(trained.path, SETTINGS)
    texts = ["the cat is red", "the dog lives in a house by the river. it is not red and not green"]
    rows = encoder.passages(texts).toarray()
    inputs = encoder.model.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = language_model(encoder.model)(**inputs).logits
    for row, own, mask in zip(rows, logits, inputs["attention_mask"], strict=True):
        assert row == pytest.approx(np.log1p(np.maximum(own[mask.bool()].max(0).values.numpy(), 0)), abs=1e-5)


@pytest.fixture(scope="module")
def made(home: Home, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, dict[str, bool]]:
    """The study's result by the three assets, and which of its claims held, by metric."""
    from assets.learned_sparse import learned_sparse_study as study
    from assets.learned_sparse import sparse_encoder, sparse_index
    from resources.build import build_resources
    from tests.lineage import claims_on, given, held

    inputs = {"passages": home.passages, "retrieval_tracks": home.tracks, "bm25_index": home.bm25, "dense_index": home.dense}
    overrides = {
        "learned_sparse": SETTINGS.model_dump(mode="json") | {"base": f"path:{home.bert}"}, "retrieval": home.search.model_dump(mode="json"),
        "embedder": MINING.model_dump(mode="json") | {"base": f"path:{home.sentence}"}, "reranker": {"tuning_queries": 6},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("instance")
    done = dg.materialize(
        [*given(inputs), sparse_encoder, sparse_index, study, *claims_on("learned_sparse_study")],
        instance=dg.DagsterInstance.ephemeral(), raise_on_error=False,
        resources=build_resources("starter", folder, overrides=overrides, journal=False),
    )  # fmt: skip
    manifest = done.output_for_node("learned_sparse_study").manifest
    return StudyResult.load(ArtifactStore(str(folder / "artifacts" / "starter")).path(manifest)), held(done, "learned_sparse_study")


def test_the_assets_measure_every_claim_and_the_ones_on_correctness_hold(made: tuple[StudyResult, dict[str, bool]]) -> None:
    result, passed = made
    assert set(passed) == {bar.metric for bar in CLAIMS} and all(np.isfinite(result.value(metric)) for metric in passed)
    assert all(passed[metric] for metric in ("pooling_error", "index_error", "lucene_error", "rounding_of_bound", "shuffled_loss_low"))
    assert {i.role for i in result.identities} == {"encoder of terms", "encoder"}
    assert sum(result.settings["weights"]["two"]) == pytest.approx(1) and len(result.settings["weights"]["three"]) == 3


def test_the_numbers_follow_from_the_queries(home: Home, made: tuple[StudyResult, dict[str, bool]]) -> None:
    result = made[0]
    scores = result.per_example
    assert scores["example_id"].is_unique and set(scores["example_id"]) == set(home.tracks.loc[home.tracks["split"] == "test", "query_id"])
    gain = result.metric("sparse_over_bm25")
    assert gain is not None and gain.n == scores["group"].nunique() < len(scores)  # questions: their phrasings are no units
    assert gain.value == pytest.approx(result.value("ndcg_at_10__sparse") - result.value("ndcg_at_10__bm25"))
    sizes = result.tables["sizes"].set_index("system")["bytes"]
    assert sizes["sparse"] == 8 * round(result.value("terms_per_passage") * len(TEXTS)) and sizes["top_4"] <= 8 * 4 * len(TEXTS) < sizes["dense"]
    assert result.value("bytes_per_passage__impact") > 0 and 0 <= result.value("expansion_share") < 1
    assert set(result.plots) == {"size"} and result.plots["size"].startswith(b"\x89PNG") and len(result.plots["size"]) < 50_000


def test_training_and_the_choice_of_weights_share_no_document(home: Home) -> None:
    from curriculum.learned_sparse.training import _only_training

    dev = home.tracks[home.tracks["split"] == "dev"]
    kept = _only_training(home.tracks, TUNING, 0)
    trains, chooses = kept[kept["split"] == "dev"], untrained_dev(dev, TUNING, 0)
    assert len(trains) and len(chooses) and len(trains) + len(chooses) == len(dev)
    assert not {d for ids in trains["doc_ids"] for d in ids} & {d for ids in chooses["doc_ids"] for d in ids}


def verdict(result: StudyResult, metric: str) -> Verdict:
    return judge_value(next(bar for bar in CLAIMS if bar.metric == metric), result).verdict


def indexed(home: Home, encoder: ModelArtifact, folder: Path) -> IndexArtifact:
    (folder / "shards").mkdir(parents=True)
    texts = SparseTexts(encoder.path, SETTINGS)
    return build_sparse_index(home.passages, texts, SETTINGS, out=folder / "index", checkpoints=folder / "shards", progress=lambda line: None)


def test_vectors_of_other_passages_turn_the_checks_red_and_finished_cells_are_kept(home: Home, trained: ModelArtifact, tmp_path: Path) -> None:
    whole = indexed(home, trained, tmp_path)
    rows = load_rows(whole.path / "project" / "vectors.safetensors")
    save_rows(whole.path / "project" / "vectors.safetensors", rows[np.random.default_rng(3).permutation(rows.shape[0])])
    lines: list[str] = ["begun"]
    broken = home.study(trained, whole, tmp_path / "cells", lines)
    assert verdict(broken, "index_error") is Verdict.FAILED and verdict(broken, "shuffled_loss_low") is Verdict.FAILED
    assert verdict(broken, "lucene_error") is Verdict.FAILED and verdict(broken, "pooling_error") is Verdict.PASSED
    again = home.study(trained, whole, tmp_path / "cells", lines)
    assert sum("kept from before" in line for line in lines) == 2
    assert [m for m in again.metrics if m.deterministic] == [m for m in broken.metrics if m.deterministic]


def test_impacts_rounded_by_another_scale_turn_lucenes_claims_red(
    home: Home, trained: ModelArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "rounded", lambda rows, scale: rounded(rows, scale // 2))
    result = home.study(trained, indexed(home, trained, tmp_path), tmp_path / "cells")
    assert verdict(result, "lucene_error") is Verdict.FAILED and verdict(result, "rounding_of_bound") is Verdict.FAILED
    assert verdict(result, "index_error") is Verdict.PASSED


def test_what_cannot_be_studied_is_an_error_that_says_why(home: Home, trained: ModelArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, known = indexed(home, trained, tmp_path), (home.tracks, home.passages)
    monkeypatch.setattr(home, "tracks", known[0][known[0]["split"] != "dev"])
    with pytest.raises(DataError, match="needs queries of the splits"):
        home.study(trained, whole, tmp_path / "cells")
    monkeypatch.setattr(home, "tracks", known[0])
    monkeypatch.setattr(home, "passages", known[1].iloc[:-4])
    with pytest.raises(DataError, match=r"4 passages are in the sparse index but not among the passages \(hare-red\)"):
        home.study(trained, whole, tmp_path / "cells")
    with pytest.raises(DataError, match="no passages to encode"):
        build_sparse_index(known[1].head(0), SparseTexts(trained.path, SETTINGS), SETTINGS, out=tmp_path, checkpoints=tmp_path, progress=print)
