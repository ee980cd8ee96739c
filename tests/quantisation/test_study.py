"""The study on a tiny model: llama.cpp's likelihoods are transformers', bytes are what the shapes say, a killed run resumes; its asset."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import torch

from curriculum.adaptation.gguf import dequantise_gguf
from curriculum.adaptation.model import load_tokenizer
from curriculum.adaptation.text import token_blocks
from curriculum.artifacts import ModelArtifact
from curriculum.cells import Cells
from curriculum.errors import DataError, SourceError, UserError
from curriculum.quantisation import study as subject
from curriculum.quantisation.formats import FORMATS, dynamic_int8, in_format, weight_bytes
from curriculum.quantisation.llamacpp import LlamaCpp
from curriculum.quantisation.settings import QuantisationSettings
from curriculum.quantisation.study import Held, gguf_file, quality_of, quantisation_study
from curriculum.results import StudyResult
from curriculum.storage import ArtifactStore
from curriculum.syllabus import load_syllabus
from tests.adaptation.tiny_llama import TEXTS, save_gguf
from tests.reading.tiny import tiny_bert, tiny_examples

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    save_gguf(file)
    return file


@pytest.fixture(scope="module")
def folder(gguf: Path) -> Path:
    return dequantise_gguf(gguf, gguf.parent / "model")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
    from transformers import AutoModelForQuestionAnswering

    out = tiny_bert(tmp_path_factory.mktemp("reader"))
    AutoModelForQuestionAnswering.from_pretrained(out).save_pretrained(out)
    (out / "reader.json").write_text(json.dumps({"max_length": 64, "stride": 16, "n_best": 5, "max_tokens": 5}))
    return ModelArtifact(out)


@pytest.fixture(scope="module")
def settings(gguf: Path, folder: Path) -> QuantisationSettings:
    return QuantisationSettings(model=f"path:{folder}", gguf=f"path:{gguf}", block_size=24, blocks=4, prompt_tokens=16, new_tokens=3, rounds=2)


@pytest.fixture(scope="module")
def made(settings: QuantisationSettings, reader: ModelArtifact, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResult, dict[str, bool]]:
    """The asset's result, and which of its claims held, by metric."""
    from assets.inference import quantisation_study as asset
    from assets.lineage import Lab, lineage_asset
    from resources.build import build_resources
    from tests.lineage import claims_on

    @lineage_asset(group="test")
    def domain_corpus(lab: Lab) -> pd.DataFrame:
        """Sentences, all held out."""
        return pd.DataFrame({"doc_id": [f"d{i}" for i in range(len(TEXTS))], "text": TEXTS, "split": "test"})

    @lineage_asset(group="test")
    def qa_dataset(lab: Lab) -> pd.DataFrame:
        """Tiny questions."""
        return tiny_examples()

    @lineage_asset(group="test")
    def qa_reader(lab: Lab) -> ModelArtifact:
        """A reader that was never trained."""
        shutil.copytree(reader.path, lab.out, dirs_exist_ok=True)
        return ModelArtifact(lab.out)

    home, overrides = tmp_path_factory.mktemp("home"), {"quantisation": settings.model_dump(mode="json")}
    checks = claims_on("quantisation_study")
    done = dg.materialize(
        [domain_corpus, qa_dataset, qa_reader, asset, *checks], instance=dg.DagsterInstance.ephemeral(), raise_on_error=False,
        resources=build_resources("starter", home, overrides=overrides, journal=False),
    )  # fmt: skip
    manifest = done.output_for_node("quantisation_study").manifest
    held = {e.check_name.removeprefix("claim_quantisation_study_"): e.passed for e in done.get_asset_check_evaluations()}
    return StudyResult.load(ArtifactStore(str(home / "artifacts" / "starter")).path(manifest)), held


@pytest.fixture
def result(made: tuple[StudyResult, dict[str, bool]]) -> StudyResult:
    return made[0]


def run(settings: QuantisationSettings, folder: Path, reader: ModelArtifact, cells: Cells, lines: list[str] | None = None) -> StudyResult:
    progress = (lines if lines is not None else []).append
    return quantisation_study(
        TEXTS, reader, tiny_examples(), settings, folder=folder, identities=[], seed=0, cells=Cells(cells.folder, progress), progress=progress
    )


def test_the_asset_s_claims(made: tuple[StudyResult, dict[str, bool]]) -> None:
    held = made[1]
    assert set(held) == {bar.metric for bar in load_syllabus().claims if bar.asset == "quantisation_study"}
    assert {metric for metric, passed in held.items() if not passed} == {"size_of_fp32__gguf"}, "the tiny file is in float32"


def test_the_study(result: StudyResult) -> None:
    assert all(math.isfinite(metric.value) for metric in result.metrics)
    table = result.tables["formats"].set_index("format")
    assert list(table.index) == ["fp32", "bf16", "int8_dynamic", "int8_bnb", "nf4", "gguf"]
    for name in table.index:
        nats = result.per_example[f"nats__{name}"]
        assert table.loc[name, "perplexity"] == pytest.approx(math.exp(nats.mean())) == result.value(f"perplexity__{name}")
        assert len(nats) == 4 and result.value(f"decode_speed__{name}") > 0
    assert result.value("perplexity_change__nf4") == pytest.approx(table.loc["nf4", "perplexity"] / table.loc["fp32", "perplexity"] - 1)
    for name in FORMATS:
        assert table.loc[name, "reader_f1"] == result.value(f"reader_f1__{name}")
        assert name == "fp32" or result.metric(f"reader_f1_change__{name}").n == len(tiny_examples().query("split == 'test'"))
    assert math.isnan(table.loc["gguf", "reader_f1"]), "no head for it in llama.cpp"
    assert all(png.startswith(b"\x89PNG") and len(png) < 50_000 for png in result.plots.values()) and len(result.plots) == 2


def test_llama_cpp_finds_each_token_as_likely_as_transformers_does(gguf: Path, folder: Path) -> None:
    block = token_blocks(load_tokenizer(folder), TEXTS, 24, limit=1)
    with torch.no_grad():
        logits = in_format("fp32", folder)(block[:, :-1]).logits[0]
    expected = torch.nn.functional.cross_entropy(logits, block[0, 1:], reduction="none")
    found = LlamaCpp(gguf, threads=1, context=32).nats(block[0].tolist())
    assert np.allclose(found, expected.numpy(), atol=2e-3), "float16 keys and values"
    shuffled = LlamaCpp(gguf, threads=1, context=32).nats(block[0].flip(0).tolist())
    assert not np.allclose(found, shuffled, atol=2e-3)


def test_bytes_are_what_the_shapes_say(folder: Path, result: StudyResult) -> None:
    model = in_format("fp32", folder)
    linear = {name: part.weight for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and name != "lm_head"}
    weights, rows = sum(w.numel() for w in linear.values()), sum(len(w) for w in linear.values())
    table, norms, turns = model.get_input_embeddings().weight.numel(), 5 * 64, 2 * 4 * 8  # the output layer is the embedding
    beside = 4 * (table + norms) + turns
    expected = {
        "fp32": beside + 4 * weights, "bf16": 2 * (table + norms + weights) + turns, "int8_dynamic": beside + weights + 4 * rows,
        "int8_bnb": beside + weights + 4 * rows,
    }
    measured = {name: 1e6 * result.value(f"megabytes__{name}") for name in FORMATS}
    assert {name: measured[name] for name in expected} == pytest.approx(expected)
    # a byte a block of 64, and in every layer the scale's own code, two tables and a mean
    blocks, tables = weights // 64, len(linear) * 4 * (16 + 256 + 1)
    assert measured["nf4"] == pytest.approx(beside + weights / 2 + blocks + tables + 4 * sum(-(-w.numel() // 64 // 256) for w in linear.values()))


def test_a_killed_study_goes_on_with_the_next_cell(
    settings: QuantisationSettings, folder: Path, reader: ModelArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lines = subject.quality_of, list[str]()
    for dies_at in ("bf16", "int8_dynamic"):
        monkeypatch.setattr(subject, "quality_of", lambda held, name, last=dies_at: 1 / 0 if name == last else real(held, name))
        lines.clear()
        with pytest.raises(ZeroDivisionError):
            run(settings, folder, reader, Cells(tmp_path), lines)
    assert [line.split(":")[0] for line in lines if line.endswith("kept from before")] == ["codes", "quality of fp32"]
    assert sum(" MB, perplexity " in line for line in lines) == 2


def test_a_layer_in_int8_says_nearly_what_it_said(folder: Path) -> None:
    ids = torch.arange(3, 40)[None]
    plain, rounded = in_format("fp32", folder), in_format("int8_dynamic", folder)
    with torch.no_grad():
        expected, found = plain(ids).logits, rounded(ids).logits
    assert 0 < float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())
    layer = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 8))
    assert weight_bytes(dynamic_int8(layer, keep=["1"])) == (64 * 8 + 8 * 4 + 8 * 4) + (8 * 8 + 8) * 4, "the layer that is kept keeps its float32"


def test_without_a_gguf_file_there_is_no_such_row(gguf: Path) -> None:
    assert gguf_file("") is None and Held(gguf, gguf_file(""), torch.zeros(1, 2)).formats == list(FORMATS)
    assert gguf_file(f"path:{gguf}") == gguf and gguf_file("packaged:smollm2").suffix == ".gguf"
    with pytest.raises(SourceError, match="gone.gguf does not exist"):
        gguf_file(f"path:{gguf.with_name('gone.gguf')}")


def test_what_cannot_be_measured_says_what_to_change(settings: QuantisationSettings, folder: Path, reader: ModelArtifact, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fills \d+ blocks of 24 tokens; lower quantisation.blocks"):
        run(settings.model_copy(update={"blocks": 10_000}), folder, reader, Cells(tmp_path))
    (tmp_path / "no.gguf").write_bytes(b"GGUF, or not")
    held = Held(folder, tmp_path / "no.gguf", torch.zeros(1, 9, dtype=torch.long))
    with pytest.raises(UserError, match="set quantisation.gguf to a GGUF file"):
        quality_of(held, "gguf")
