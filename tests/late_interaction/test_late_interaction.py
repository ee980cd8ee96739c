"""Late interaction: MaxSim by its definition, padding without influence, storage and its way back, and a study that sees broken vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from curriculum.artifacts import DirectoryArtifact, IndexArtifact, ModelArtifact
from curriculum.cells import Cells
from curriculum.crossencoder.model import CrossEncoder
from curriculum.errors import DataError
from curriculum.evaluation.gate import Verdict, judge_value
from curriculum.late_interaction import systems
from curriculum.late_interaction.encoder import TokenEncoder, is_multi_vector
from curriculum.late_interaction.maxsim import maxsim, maxsim_loop, padded
from curriculum.late_interaction.settings import LateInteractionSettings
from curriculum.late_interaction.storage import expected_bytes, fit_codebooks, stored
from curriculum.late_interaction.study import late_interaction_study
from curriculum.late_interaction.systems import single_vectors
from curriculum.reranking.first_stage import retriever_over
from curriculum.reranking.reranker import Reranker
from curriculum.reranking.settings import RerankerSettings
from curriculum.results import StudyResult
from curriculum.retrieval.dense import Encoder, build_dense, embed_passages
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from tests.crossencoder.tiny import tiny_bert
from tests.retrieval import animals
from tests.retrieval.animals import WORDS, passages, tracks

torch.set_num_threads(1)
SETTINGS = LateInteractionSettings(depth=12, queries=12, centroids=8, parity_queries=3, parity_passages=6, batch_size=16)
TUNING = RerankerSettings(tuning_share=0.5, tuning_queries=6)
CLAIMS = [bar for bar in load_syllabus().claims if bar.asset == "late_interaction_study"]


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def ragged(counts: tuple[int, ...], seed: int, dimension: int = 8) -> list[torch.Tensor]:
    made = [torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed + i)) for i, count in enumerate(counts)]
    return [unit(vectors) for vectors in made]


QUERIES, PASSAGES = ragged((3, 1, 6), 0), ragged((4, 9, 1, 2), 50)


def test_maxsim_is_the_double_loop_and_the_librarys() -> None:
    from sentence_transformers.util.similarity import maxsim as library

    own = maxsim(*padded(QUERIES), *padded(PASSAGES))
    loop = [[maxsim_loop(q.numpy(), p.numpy()) for p in PASSAGES] for q in QUERIES]
    assert own.shape == (3, 4) and own.numpy() == pytest.approx(np.array(loop), abs=1e-6)
    assert own.numpy() == pytest.approx(library(QUERIES, PASSAGES).numpy(), abs=1e-6)
    assert loop[1][2] == pytest.approx(float(QUERIES[1][0] @ PASSAGES[2][0]), abs=1e-6)  # one token each: their cosine


def test_padding_changes_no_score_and_a_mask_that_lets_it_through_does() -> None:
    against = [-QUERIES[0].mean(0, keepdim=True), *PASSAGES]  # every similarity with it may be negative: a padding of zeros would win
    batch, mask = padded(against)
    junk = torch.where(mask[..., None], batch, torch.full_like(batch, 7.0))
    asked, asked_mask = padded(QUERIES)
    noisy = torch.where(asked_mask[..., None], asked, torch.full_like(asked, 7.0))
    together = maxsim(noisy, asked_mask, junk, mask)
    alone = torch.stack([torch.cat([maxsim(*padded([q]), *padded([p]))[0] for p in against]) for q in QUERIES])
    assert together.numpy() == pytest.approx(alone.numpy(), abs=1e-6) and float(alone[0, 0]) < 0
    leaky = maxsim(asked, asked_mask, batch, torch.ones_like(mask))
    assert float((leaky - alone).abs().max()) > 0.1
    with pytest.raises(ValueError, match="at least one token"):
        padded([torch.zeros(0, 8)])


def test_a_compressed_token_comes_back_nearer_the_more_bits_it_has() -> None:
    vectors = torch.cat(ragged((900,), 3, 16)).numpy()
    back = [book.decompress(*book.compress(vectors)) for book in fit_codebooks(vectors, (1, 2, 4, 8), 12, seed=0)]
    cosines = [float((vectors * own).sum(axis=1).mean()) for own in back]
    assert cosines == sorted(cosines) and cosines[0] > 0.7 and cosines[3] > 0.999
    assert all(np.linalg.norm(own, axis=1) == pytest.approx(1.0, abs=1e-5) for own in back)
    (book,) = fit_codebooks(vectors, (4,), 12, seed=0)
    nearest, packed = book.compress(vectors)
    assert nearest.dtype == np.int32 and packed.dtype == np.uint8 and packed.shape == (900, 8)
    assert (nearest == np.argmax(vectors @ book.centroids_KD.T, axis=1)).all()
    by_hand = book.levels[np.stack([packed & 15, packed >> 4], axis=-1).reshape(900, 16)] + book.centroids_KD[nearest]
    assert back[2] == pytest.approx(by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True), abs=1e-6)
    with pytest.raises(DataError, match="too few to compress; 78 are needed"):
        fit_codebooks(vectors[:77], (8,), 4, seed=0)
    with pytest.raises(DataError, match="fill no whole bytes"):
        fit_codebooks(vectors[:, :3].copy(), (2,), 4, seed=0)


def test_every_form_gives_its_passages_back_in_the_bytes_that_arithmetic_says() -> None:
    texts = ragged((40, 3, 90, 17), 9, 32)
    stores = stored([*"abcd"], [len(t) for t in texts], torch.cat(texts), SETTINGS, 0)
    assert list(stores) == ["fp32", "fp16", "residual_8bit", "residual_2bit"]
    for form, store in stores.items():
        (batch, mask), (expected, expected_mask) = store.passages(["c", "a"]), padded([texts[2], texts[0]])
        assert (mask == expected_mask).all() and batch.dtype == torch.float32
        cosines = (batch * expected).sum(-1)[mask]
        assert float(cosines.min()) > {"fp32": 1 - 1e-6, "fp16": 0.999, "residual_8bit": 0.99, "residual_2bit": 0.7}[form]
        assert store.bytes() == pytest.approx(expected_bytes(form, 4, 150, 32, SETTINGS), abs=400)  # the file's header
    assert torch.equal(stores["fp32"].passages(["b"])[0][0], texts[1])


def test_settings_that_would_not_see_padding_are_refused() -> None:
    with pytest.raises(ValidationError, match="padding is seen in one batch"):
        LateInteractionSettings(batch_size=4, parity_passages=5)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"), WORDS)


@pytest.fixture(scope="module")
def sentence_encoder(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean pooling over the same BERT; its files name a prompt for queries."""
    return animals.sentence_encoder(bert, tmp_path_factory.mktemp("sentence"))


def hidden(bert: Path, tokens: str) -> torch.Tensor:
    """The last layer's state of each of ``tokens`` (words of the vocabulary) between [CLS] and [SEP]: [tokens, 32]."""
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(bert).convert_tokens_to_ids(["[CLS]", *tokens.split(), "[SEP]"])
    with torch.inference_mode():
        return AutoModel.from_pretrained(bert)(torch.tensor([ids])).last_hidden_state[0]


def test_a_sentence_encoders_tokens_are_its_last_layers_of_unit_length(bert: Path, sentence_encoder: Path) -> None:
    encoder = TokenEncoder(sentence_encoder, SETTINGS)
    short, long = "the cat is red", "the dog lives in a house by the river. " * 5
    together = encoder.passages([short, long])
    assert not encoder.made_for_maxsim and together[0].shape == (6, 32)
    assert torch.allclose(together[0], unit(hidden(bert, short)), atol=1e-6)
    assert torch.allclose(together[0], encoder.passages([short])[0], atol=1e-6)
    assert torch.allclose(encoder.queries(["the cat"])[0], encoder.passages(["find the cat"])[0], atol=1e-6)  # the model's own prompt
    asked = TokenEncoder(sentence_encoder, SETTINGS.model_copy(update={"query_prompt": "", "max_tokens": 8}))
    assert torch.allclose(asked.queries(["the cat"])[0], asked.passages(["the cat"])[0], atol=1e-6) and len(asked.passages([long])[0]) == 8


def test_a_colbert_checkpoint_brings_its_projection_markers_masks_and_skipped_punctuation(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "colbert"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    weights = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    save_file({**weights, "linear.weight": weight}, folder / "model.safetensors", metadata={"format": "pt"})
    metadata = {"query_maxlen": 12, "doc_maxlen": 20, "mask_punctuation": True, "query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
    (folder / "artifact.metadata").write_text(json.dumps(metadata))
    assert is_multi_vector(folder) and not is_multi_vector(bert)
    encoder = TokenEncoder(folder, SETTINGS)
    (query,), (passage, long) = encoder.queries(["the cat"]), encoder.passages(["the cat is red.", "the dog is black " * 20])
    assert encoder.made_for_maxsim and query.shape == (12, 16) and len(long) == 20
    states = hidden(bert, "[unused1] the cat is red .")
    kept = [0, 1, 2, 3, 4, 5, 7]  # all but the full stop, which is read and not compared
    assert torch.allclose(passage, unit(states[kept] @ weight.T), atol=1e-5)


class Home:
    """Both indexes, the vectors and an untrained cross-encoder over the animals."""

    def __init__(self, folder: Path, bert: Path, encoder: Path) -> None:
        from curriculum.retrieval.bm25 import build_bm25

        self.settings, self.encoder = RetrievalSettings(encoder=f"path:{encoder}", max_tokens=96), encoder
        own = Encoder(encoder, self.settings)
        (folder / "checkpoints").mkdir()
        self.embeddings = embed_passages(passages(), own, self.settings, folder / "vectors", folder / "checkpoints", lambda line: None)
        self.bm25, self.dense = build_bm25(passages(), self.settings, folder / "bm25"), build_dense(self.embeddings, folder / "dense")
        self.reranker = ModelArtifact(folder / "reranker")
        Reranker(CrossEncoder.start(bert, max_length=64, seed=0)).save(self.reranker.path)

    def run(self, cells: Path, tokens: TokenEncoder | None = None, lines: list[str] | None = None) -> StudyResult:
        progress: Callable[[str], None] = (lines if lines is not None else []).append
        return late_interaction_study(
            Reranker.load(self.reranker.path), passages(), tracks(), SETTINGS, tuning=TUNING,
            retriever=retriever_over(self.bm25, self.dense, self.settings, model=lambda uri: self.encoder),
            tokens=tokens or TokenEncoder(self.encoder, SETTINGS), single=single_vectors(self.embeddings, Encoder(self.encoder, self.settings)),
            seed=0, cells=Cells(cells, progress), progress=progress,
        )  # fmt: skip


@pytest.fixture(scope="module")
def home(bert: Path, sentence_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"), bert, sentence_encoder)


def verdict(result: StudyResult, metric: str) -> Verdict:
    return judge_value(next(bar for bar in CLAIMS if bar.metric == metric), result).verdict


@pytest.fixture(scope="module")
def made(home: Home, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, dict[str, bool]]:
    """The asset's result, and which of its claims held, by metric."""
    from assets.late_interaction import late_interaction_study as asset
    from resources.build import build_resources
    from tests.lineage import claims_on, given

    inputs: dict[str, DirectoryArtifact | IndexArtifact | pd.DataFrame] = {
        "reranker": home.reranker, "passages": passages(), "retrieval_tracks": tracks(), "passage_embeddings": home.embeddings,
        "bm25_index": home.bm25, "dense_index": home.dense,
    }  # fmt: skip
    own = SETTINGS.model_dump(mode="json") | {"encoder": f"path:{home.encoder}"}
    overrides = {"late_interaction": own, "retrieval": home.settings.model_dump(mode="json"), "reranker": {"tuning_queries": 6}}
    folder = tmp_path_factory.mktemp("instance")
    done = dg.materialize(
        [*given(inputs), asset, *claims_on("late_interaction_study")], instance=dg.DagsterInstance.ephemeral(),
        resources=build_resources("starter", folder, overrides=overrides, journal=False), raise_on_error=False,
    )  # fmt: skip
    manifest = done.output_for_node("late_interaction_study").manifest
    held = {e.check_name.removeprefix("claim_late_interaction_study_"): e.passed for e in done.get_asset_check_evaluations()}
    return StudyResult.load(ArtifactStore(str(folder / "artifacts" / "starter")).path(manifest)), held


def test_the_asset_measures_every_claim_and_the_ones_on_correctness_hold(made: tuple[StudyResult, dict[str, bool]]) -> None:
    result, held = made
    assert set(held) == {bar.metric for bar in CLAIMS} and all(np.isfinite(result.value(metric)) for metric in held)
    sure = {"maxsim_error__loop", "maxsim_error__library", "padding_error", "shuffled_loss_low", "bytes_error", "ndcg_change_low__fp16"}
    assert all(held[metric] for metric in sure)
    assert {i.role for i in result.identities} == {"encoder of tokens", "encoder"} and result.settings["weights"].keys() == {"cross_encoder", "single", "late"}


def test_the_numbers_follow_from_the_queries(made: tuple[StudyResult, dict[str, bool]]) -> None:
    result = made[0]
    scores, table = result.per_example, result.tables["systems"].set_index("ranking")
    assert len(scores) == 12 and scores["example_id"].is_unique
    assert scores.groupby("group")["ndcg_at_10__none"].mean().mean() == pytest.approx(result.value("ndcg_at_10__none"))
    gain = result.metric("ndcg_gain__late_alone")
    assert gain is not None and gain.n == scores["group"].nunique() < 12  # questions: their phrasings are no units
    assert gain.value == pytest.approx(result.value("ndcg_at_10__late_alone") - result.value("ndcg_at_10__none"))
    assert table.loc["none", "gain"] == 0 and table.loc["late_alone", "weight"] == 1 and (table.drop("none")["seconds"] > 0).all()
    sizes = result.tables["sizes"].set_index("form")
    assert sizes.loc["fp32", "bytes_per_passage"] / sizes.loc["fp16", "bytes_per_passage"] == pytest.approx(2, rel=0.01)
    assert result.value("bytes_per_passage__single") == 4 * 32 and result.value("size_of_single__fp16") > 5
    assert all(png.startswith(b"\x89PNG") and len(png) < 50_000 for png in result.plots.values()) and set(result.plots) == {"time", "size"}


class Broken(TokenEncoder):
    """Gives every passage of a batch the tokens of another one."""

    def passages(self, texts: list[str]) -> list[torch.Tensor]:
        found = super().passages(texts)
        return [found[i] for i in np.random.default_rng(1).permutation(len(found))]


class Unused(TokenEncoder):
    """Is not to be asked."""

    def passages(self, texts: list[str]) -> list[torch.Tensor]:
        raise AssertionError("what is kept is not computed again")

    queries = passages


def test_vectors_that_belong_to_other_passages_turn_the_control_red_and_finished_cells_are_kept(home: Home, tmp_path: Path) -> None:
    broken = home.run(tmp_path, Broken(home.encoder, SETTINGS))
    assert verdict(broken, "shuffled_loss_low") is Verdict.FAILED and verdict(broken, "padding_error") is Verdict.FAILED
    lines: list[str] = []
    again = home.run(tmp_path, Unused(home.encoder, SETTINGS), lines)
    assert sum("kept from before" in line for line in lines) == 3 and again.metrics == broken.metrics


def test_padding_that_is_scored_turns_its_claim_red(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(texts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        batch, mask = padded(texts)
        junk = torch.zeros_like(batch)
        junk[..., 0] = 7.0
        return torch.where(mask[..., None], batch, junk), torch.ones_like(mask)

    monkeypatch.setattr(systems, "padded", leaky)
    result = home.run(tmp_path)
    assert verdict(result, "padding_error") is Verdict.FAILED and verdict(result, "maxsim_error__library") is Verdict.FAILED


def test_what_cannot_be_studied_is_an_error_that_says_why(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tracks()
    for split in ("test", "dev"):
        monkeypatch.setitem(globals(), "tracks", lambda split=split: whole[whole["split"] != split])
        with pytest.raises(DataError, match="needs queries of the splits"):
            home.run(tmp_path)
    monkeypatch.setitem(globals(), "tracks", lambda: whole)
    some = passages().iloc[:-4]
    monkeypatch.setitem(globals(), "passages", lambda: some)
    with pytest.raises(DataError, match=r"passages are in an index but not among the passages or their vectors \(hare-black\)"):
        home.run(tmp_path)
