from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from curriculum.adaptation.model import add_adapter, base_of, block_losses, load_adapter, load_base, load_tokenizer, trainable
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.text import token_blocks
from curriculum.adaptation.training import schedule, train, train_adapter
from curriculum.errors import DataError, UserError
from curriculum.results import Identity
from tests.adaptation.tiny_llama import TEXTS, save_tiny

torch.set_num_threads(1)
SETTINGS = AdapterSettings(rank=4, alpha=8, dropout=0.1, block_size=24, steps=12, learning_rate=5e-3, logit_chunk=7, checkpoint_every=4)
BASE = Identity(role="base model", source="path:tiny", digest="abc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def run(folder: Path, tmp_path: Path, settings: AdapterSettings = SETTINGS, progress=lambda line: None):
    out = tmp_path / "out"
    out.mkdir(parents=True, exist_ok=True)
    return train_adapter(
        TEXTS, settings, folder=folder, base=BASE, out=out, checkpoints=tmp_path / "checkpoints", device="cpu",
        precision="float32", seed=0, progress=progress,
    )


def test_training_lowers_the_loss_of_the_text_and_leaves_the_base_alone(folder, tmp_path):
    artifact = run(folder, tmp_path)
    losses = artifact.facts["train_losses"]
    assert len(losses) == 12 and losses[-1] < losses[0]
    model = load_base(folder, SETTINGS, device="cpu")
    blocks = token_blocks(load_tokenizer(folder), TEXTS, 24, limit=6)
    before = block_losses(model, blocks, chunk=7)
    adapted = load_adapter(model, artifact.path, BASE)
    after = block_losses(adapted, blocks, chunk=7)
    assert after.mean() < before.mean() - 0.05
    with adapted.disable_adapter():
        assert torch.equal(block_losses(adapted, blocks, chunk=7), before)


def test_an_adapter_directory_names_its_base_and_refuses_another(folder, tmp_path):
    artifact = run(folder, tmp_path, SETTINGS.model_copy(update={"steps": 1}))
    assert {"adapter_model.safetensors", "adapter_config.json", "base.json"} <= {p.name for p in artifact.path.iterdir()}
    assert json.loads((artifact.path / "adapter_config.json").read_text())["base_model_name_or_path"] == "path:tiny"
    assert base_of(artifact.path) == BASE
    with pytest.raises(UserError, match="train it again"):
        load_adapter(load_base(folder, SETTINGS, device="cpu"), artifact.path, BASE.model_copy(update={"digest": "other"}))


class Killed(BaseException):
    """Stands for a kill between two steps: nothing of the process survives but its files."""


def test_a_killed_run_ends_as_an_uninterrupted_one(folder, tmp_path):
    whole = run(folder, tmp_path / "whole")

    def kill(line: str) -> None:
        if line.startswith("step 10/"):
            raise Killed

    with pytest.raises(Killed):
        run(folder, tmp_path / "cut", progress=kill)
    lines: list[str] = []
    resumed = run(folder, tmp_path / "cut", progress=lines.append)
    assert "resumed at step 8/12" in lines
    assert resumed.facts["train_losses"] == whole.facts["train_losses"]
    ours, theirs = (load_file(a.path / "adapter_model.safetensors") for a in (resumed, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_model_that_was_evaluated_still_trains(folder):
    """4-bit layers may repack their weights when evaluated; a repacked layer would pass no gradient on."""
    model = add_adapter(load_base(folder, SETTINGS, device="cpu"), SETTINGS, seed=0)
    for part in model.modules():
        assert not getattr(part, "support_avx512bf16_for_cpu", False)
    blocks = token_blocks(load_tokenizer(folder), TEXTS, 24, limit=2)
    block_losses(model, blocks, chunk=7)
    assert model.training
    train(model, blocks, SETTINGS.model_copy(update={"steps": 1}), checkpoints=Path("unused"), device="cpu", seed=0, progress=print)
    first = next(p for name, p in trainable(model).items() if "layers.0" in name and "lora_B" in name)
    assert first.abs().sum() > 0


def test_accumulation_and_checkpointing_change_memory_and_not_the_gradient(folder):
    """Four blocks as one batch, as four forward passes, and recomputed: the adapters take the same step."""
    results = []
    for changes in ({"batch_size": 4}, {"accumulation": 4}, {"batch_size": 4, "gradient_checkpointing": True}):
        settings = SETTINGS.model_copy(update={"steps": 2, "dropout": 0.0, **changes})
        model = add_adapter(load_base(folder, settings, device="cpu"), settings, seed=0)
        blocks = token_blocks(load_tokenizer(folder), TEXTS, 24, limit=8)
        record = train(model, blocks, settings, checkpoints=Path("unused"), device="cpu", seed=0, progress=lambda line: None)
        results.append(record.losses)
    assert results[1] == pytest.approx(results[0], abs=1e-4)
    assert results[2] == pytest.approx(results[0], abs=1e-5)


def test_bad_settings_and_text_are_named(folder):
    with pytest.raises(UserError, match="this model has .*q_proj"):
        add_adapter(load_base(folder, SETTINGS, device="cpu"), SETTINGS.model_copy(update={"target_modules": ("query",)}), seed=0)
    with pytest.raises(DataError, match="less than one block of 24 tokens"):
        token_blocks(load_tokenizer(folder), ["short"], 24)


def test_blocks_predict_every_token_once(folder):
    tokenizer = load_tokenizer(folder)
    blocks = token_blocks(tokenizer, TEXTS, 24)
    assert torch.equal(blocks[1:, 0], blocks[:-1, -1])
    end = tokenizer.eos_token_id
    stream = [end, *(t for text in TEXTS for t in [*tokenizer.encode(text, add_special_tokens=False), end])]
    assert blocks[:, :-1].flatten().tolist() == stream[: blocks[:, :-1].numel()]


def test_schedule_warms_up_and_decays():
    rates = [schedule(step, SETTINGS) for step in range(SETTINGS.steps)]
    assert rates[0] < rates[1] < rates[2] == 1.0
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] > 0.1
