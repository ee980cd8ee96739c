"""Merged and exported, an adapter is still the model that was trained; a wrong scale, a wrong order of rows and a wrong token are seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import curriculum.adaptation.export_study as study_module
import curriculum.adaptation.gguf_writer as writer_module
import curriculum.adaptation.merging as merging_module
from curriculum.adaptation.export_study import export_study
from curriculum.adaptation.gguf_writer import write_gguf
from curriculum.adaptation.merging import adapter_updates, merge, merge_adapter, plain_copy
from curriculum.adaptation.model import load_adapter, load_base
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.training import train_adapter
from curriculum.artifacts import ModelArtifact
from curriculum.errors import UserError
from curriculum.results import Identity, StudyResult
from curriculum.syllabus import load_syllabus
from tests.adaptation.tiny_llama import TEXTS, save_tiny

torch.set_num_threads(1)
SETTINGS = AdapterSettings(rank=4, alpha=8, block_size=24, steps=6, learning_rate=2e-2, logit_chunk=64)
BASE = Identity(role="base model", source="path:tiny", digest="abc")
BARS = {claim.metric: claim for claim in load_syllabus().claims if claim.asset == "adapter_export"}
PLACES = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, ModelArtifact]:
    folder, out = save_tiny(tmp_path_factory.mktemp("tiny")), tmp_path_factory.mktemp("adapter")
    adapter = train_adapter(
        TEXTS, SETTINGS, folder=folder, base=BASE, out=out, checkpoints=out / "checkpoints", seed=0, progress=lambda line: None, **PLACES
    )
    return folder, adapter


def merged_into(out: Path, trained: tuple[Path, ModelArtifact]) -> ModelArtifact:
    folder, adapter = trained
    out.mkdir(exist_ok=True)
    return merge_adapter(adapter, SETTINGS, folder=folder, base=BASE, out=out, progress=lambda line: None, **PLACES)


def study(trained: tuple[Path, ModelArtifact], merged: ModelArtifact) -> StudyResult:
    folder, adapter = trained
    return export_study(adapter, merged, TEXTS * 4, SETTINGS, folder=folder, base=BASE, seed=0, progress=lambda line: None, **PLACES)


def missed(result: StudyResult) -> set[str]:
    """The bars of the syllabus that the result does not meet."""
    values = {name: result.value(name) for name in BARS}
    inside = {name: (b.min is None or values[name] >= b.min) and (b.max is None or values[name] <= b.max) for name, b in BARS.items()}
    return {name for name, held in inside.items() if not held}


@pytest.fixture(scope="module")
def merged(trained, tmp_path_factory) -> ModelArtifact:
    return merged_into(tmp_path_factory.mktemp("merged"), trained)


def test_every_step_from_the_adapter_to_the_gguf_keeps_the_model(trained, merged) -> None:
    result = study(trained, merged)
    assert len(BARS) >= 7 and missed(result) == set()
    ways = result.tables["ways"].set_index("way")
    assert list(ways.index) == [
        "unmerged_nf4", "unmerged_dequantised", "merged", "gguf_f32", "gguf_f16", "merged_into_original", "quantised_again"
    ]  # fmt: skip
    assert ways.loc["gguf_f16", "megabytes"] < 0.7 * ways.loc["gguf_f32", "megabytes"]
    assert ways.loc["merged_into_original", "largest_change_from_merged"] > 1e-3  # other weights: the rounding is not in them
    assert len(result.per_example) == len(study_module.token_blocks(study_module.load_tokenizer(trained[0]), TEXTS * 4, 64, limit=16))


def test_an_adapter_merged_with_the_wrong_scale_is_red(trained, tmp_path, monkeypatch) -> None:
    real = merging_module.adapter_updates
    monkeypatch.setattr(merging_module, "adapter_updates", lambda adapted: {name: 0.5 * update for name, update in real(adapted).items()})
    wrong = merged_into(tmp_path / "wrong", trained)
    assert {"merge_difference", "safetensors_changed"} <= missed(study(trained, wrong))


def test_a_matrix_in_the_wrong_order_of_rows_is_red(trained, merged, monkeypatch) -> None:
    monkeypatch.setattr(writer_module, "interleave", lambda weight, heads: weight)
    assert {"gguf_f32_difference", "gguf_f32_changed"} <= missed(study(trained, merged))


def test_a_tokenizer_that_lost_merges_is_red(trained, merged, monkeypatch) -> None:
    real = writer_module._add_tokenizer

    def short(writer, config, tokenizer, splitter, folder) -> None:
        real(writer, config, tokenizer | {"model": tokenizer["model"] | {"merges": tokenizer["model"]["merges"][:5]}}, splitter, folder)

    monkeypatch.setattr(writer_module, "_add_tokenizer", short)
    assert missed(study(trained, merged)) == {"gguf_token_mismatches"}


def test_merged_weights_are_peft_s_own(trained, tmp_path) -> None:
    folder, adapter = trained
    plain = plain_copy(load_base(folder, SETTINGS, **PLACES))
    theirs = load_adapter(plain_copy(load_base(folder, SETTINGS, **PLACES)), adapter.path, BASE)
    updates = adapter_updates(theirs)
    assert len(updates) == 2 * 7 and all(torch.linalg.matrix_rank(update) <= SETTINGS.rank for update in updates.values())
    merge(plain, updates)
    peft = theirs.merge_and_unload().state_dict()
    assert all(torch.allclose(value, peft[name], atol=1e-6) for name, value in plain.state_dict().items())


def test_the_merged_folder_needs_neither_library(merged) -> None:
    config = json.loads((merged.path / "config.json").read_text())
    assert "quantization_config" not in config and config["use_cache"] is True
    model = AutoModelForCausalLM.from_pretrained(merged.path)
    assert {type(part).__module__.split(".")[0] for part in model.modules()} <= {"torch", "transformers"}
    assert (merged.path / merged.facts["gguf"]).stat().st_size > 0 and merged.facts["merged_matrices"] == 14


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"attention_bias": True}, "biases"), ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "linear")],
)
def test_a_model_that_the_writer_does_not_know_is_refused(tmp_path, changes, message) -> None:
    folder = save_tiny(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        write_gguf(folder, tmp_path / "model.gguf", "F32")


def test_a_tokenizer_that_has_no_name_is_refused_and_what_was_merged_stays(trained, tmp_path) -> None:
    folder = save_tiny(tmp_path / "base")
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pre_tokenizer": {"type": "Whitespace"}}))
    with pytest.raises(UserError, match="Whitespace before a BPE"):
        write_gguf(folder, tmp_path / "model.gguf", "F32")
    merged = merged_into(tmp_path / "merged", (folder, trained[1]))
    assert merged.facts["gguf"] == "" and not list(merged.path.glob("*.gguf"))
    result = study((folder, trained[1]), merged)
    assert missed(result) == {name for name in BARS if "gguf" in name}  # nothing measured is nothing met
