"""The encoder is the library's own, encoding resumes, and the index is exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from curriculum.errors import DataError
from curriculum.retrieval import dense
from curriculum.retrieval.dense import DenseIndex, Encoder, build_dense, embed_passages
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.sources import model_folder
from tests.retrieval.small import table

TEXTS = {f"p{n}": "abc " * (1 + 7 * n % 11) + chr(97 + n) for n in range(10)}
SETTINGS = RetrievalSettings(encoder="path:tiny", batch_size=3)


def embed(folder: Path, encoder: Any, settings: RetrievalSettings = SETTINGS, texts: dict[str, str] = TEXTS) -> tuple[Any, list[str]]:
    """Encode into a fresh folder over the checkpoints in ``folder/kept``; returns the artifact and the progress lines."""
    said: list[str] = []
    (folder / "kept").mkdir(exist_ok=True)
    out = folder / f"out{len(list(folder.iterdir()))}"
    out.mkdir()
    return embed_passages(table(texts), encoder, settings, out, folder / "kept", said.append), said


class Counting(Encoder):
    """An encoder that counts what it encodes, and is killed at a text."""

    seen = 0
    stop_at = ""

    def passages(self, texts: list[str]) -> np.ndarray:
        if self.stop_at and self.stop_at in texts:
            raise KeyboardInterrupt
        self.seen += len(texts)
        return super().passages(texts)


def vectors_of(artifact: Any) -> np.ndarray:
    return dense.load_file(artifact.path / "project" / "vectors.safetensors")["vectors"].numpy()


def test_vectors_are_those_of_the_library_with_the_models_own_prompts(encoder_folder: Path) -> None:
    texts, ours = list(TEXTS.values()), Encoder(encoder_folder, SETTINGS)
    library = SentenceTransformer(str(encoder_folder), device="cpu")
    for made, prefix in ((ours.queries(texts), "ask: "), (ours.passages(texts), "tell: ")):
        expected = library.encode([prefix + text for text in texts], normalize_embeddings=True)
        assert made.dtype == np.float32 and made.shape == (10, 16)
        np.testing.assert_allclose(made, expected, atol=1e-5)
    assert not np.allclose(ours.queries(texts), ours.passages(texts), atol=1e-3)


def test_the_models_own_example(tmp_path: Path) -> None:
    """The similarities that sentence-transformers' quickstart prints for all-MiniLM-L6-v2, which ships with a package."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    encoder = Encoder(model_folder("packaged:minilm", tmp_path), RetrievalSettings())
    asked, told = encoder.queries(texts), encoder.passages(texts)
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(asked @ told.T, expected, atol=1e-4)


def test_prompts_of_the_settings_replace_the_models(encoder_folder: Path) -> None:
    library = SentenceTransformer(str(encoder_folder), device="cpu")
    ours = Encoder(encoder_folder, SETTINGS.model_copy(update={"query_prompt": "", "passage_prompt": "passage: "}))
    np.testing.assert_allclose(ours.queries(["abc"]), library.encode(["abc"], normalize_embeddings=True), atol=1e-5)
    np.testing.assert_allclose(ours.passages(["abc"]), library.encode(["passage: abc"], normalize_embeddings=True), atol=1e-5)
    assert ours.queries([]).shape == (0, 16)


def test_a_model_made_for_the_dot_product_keeps_its_lengths(encoder_folder: Path, tmp_path: Path) -> None:
    library = SentenceTransformer(str(encoder_folder), device="cpu", similarity_fn_name="dot")
    library.save_pretrained(str(tmp_path))
    made = Encoder(tmp_path, SETTINGS).queries(["abc"])
    np.testing.assert_allclose(made, library.encode(["ask: abc"]), atol=1e-5)
    assert abs(np.linalg.norm(made) - 1) > 0.01


def test_texts_are_cut_at_the_limit(encoder_folder: Path) -> None:
    short = Encoder(encoder_folder, SETTINGS.model_copy(update={"max_tokens": 12}))
    alike = short.queries(["a b c d e f g h i j k l m n", "a b c d e f g h i j k l z z z z"])
    np.testing.assert_allclose(alike[0], alike[1], atol=1e-6)


def test_encoding_goes_on_where_it_was_killed(encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "SHARD", 4)
    (tmp_path / "whole").mkdir()
    whole, said = embed(tmp_path / "whole", Encoder(encoder_folder, SETTINGS))
    assert said[-1] == "project: 10/10 passages"
    encoder = Counting(encoder_folder, SETTINGS)
    encoder.stop_at = TEXTS["p9"]
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, encoder)
    assert encoder.seen == 8
    encoder.stop_at = ""
    resumed, _ = embed(tmp_path, encoder)
    assert encoder.seen == 10
    np.testing.assert_array_equal(vectors_of(resumed), vectors_of(whole))
    assert json.loads((resumed.path / "project" / "ids.json").read_text()) == list(TEXTS)
    assert resumed.facts == {"encoder": "path:tiny", "dimension": 16, "passages": {"project": 10}}


@pytest.mark.parametrize("spoil", ["other texts", "other encoder", "torn file"])
def test_a_shard_that_is_not_of_this_run_is_encoded_again(encoder_folder: Path, tmp_path: Path, spoil: str) -> None:
    encoder = Counting(encoder_folder, SETTINGS)
    embed(tmp_path, encoder)
    settings, texts = SETTINGS, dict(TEXTS)
    if spoil == "other texts":
        texts["p3"] = "xyz"
    elif spoil == "other encoder":
        settings = SETTINGS.model_copy(update={"encoder": "path:else"})
    else:
        (shard,) = (tmp_path / "kept").iterdir()
        shard.write_bytes(shard.read_bytes()[:100])
    again, _ = embed(tmp_path, encoder, settings, texts)
    assert encoder.seen == 20
    np.testing.assert_allclose(vectors_of(again), encoder.passages([f"\n{t}".strip() for t in texts.values()]), atol=1e-6)


def test_broken_weights_and_nothing_to_encode_are_errors(encoder_folder: Path, tmp_path: Path) -> None:
    encoder = Encoder(encoder_folder, SETTINGS)
    with torch.no_grad():
        next(encoder._model.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        embed(tmp_path, encoder)
    with pytest.raises(DataError, match="no passages"):
        embed(tmp_path, encoder, texts={})


def test_search_is_exact(encoder_folder: Path, tmp_path: Path) -> None:
    made, _ = embed(tmp_path, Encoder(encoder_folder, SETTINGS))
    build_dense(made, tmp_path / "index")
    queries = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    found = DenseIndex(tmp_path / "index").search(queries, 4)
    for hits, scores in zip(found, queries @ vectors_of(made).T, strict=True):
        best = np.argsort(-scores)[:4]
        assert [pid for pid, _ in hits] == [f"p{n}" for n in best]
        np.testing.assert_allclose([score for _, score in hits], scores[best], rtol=1e-5)
    assert len(DenseIndex(tmp_path / "index").search(queries, 99)[0]) == 10


def test_an_index_of_another_encoder_and_a_lost_id_are_named(encoder_folder: Path, tmp_path: Path) -> None:
    made, _ = embed(tmp_path, Encoder(encoder_folder, SETTINGS))
    build_dense(made, tmp_path / "index")
    with pytest.raises(DataError, match=r"8 dimensions and the index 16.*retrieval\.encoder"):
        DenseIndex(tmp_path / "index").search(np.zeros((1, 8), np.float32), 1)
    with pytest.raises(DataError, match="no collection 'other'"):
        DenseIndex(tmp_path / "index", "other")
    (made.path / "project" / "ids.json").write_text('["p0"]')
    with pytest.raises(DataError, match="10 vectors for 1 ids"):
        build_dense(made, tmp_path / "second")
