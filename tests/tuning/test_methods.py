"""What holds of every method: where it starts, what it trains, what it leaves alone, and what comes back from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from curriculum.adaptation.model import trainable
from curriculum.errors import UserError
from curriculum.tuning.methods import (
    attach,
    frozen_digests,
    load_frozen,
    load_tuned,
    merge_difference,
    pooled,
    save_tuned,
    stored_numbers,
    token_logits,
    weights_of,
)  # fmt: skip
from curriculum.tuning.settings import METHODS
from curriculum.tuning.training import Setting, fit
from tests.tuning.tiny import SETTINGS, save_encoder, save_language_model

torch.set_num_threads(1)
TRAINED = [method for method in METHODS if method != "none"]
STARTS_EQUAL = {"full", "lora", "qlora", "bottleneck", "ia3"}
TASKS = ("generation", "classification")
IDS = torch.arange(3, 27).view(2, 12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {"generation": save_language_model(tmp_path_factory.mktemp("lm")), "classification": save_encoder(tmp_path_factory.mktemp("enc"))}


def base(folders: dict[str, Path], task: Any, method: Any) -> Any:
    return load_frozen(folders[task], task, method, device="cpu", precision="float32")


def output(model: Any, task: str) -> torch.Tensor:
    return token_logits(model, IDS) if task == "generation" else pooled(model, IDS, torch.ones_like(IDS))


def trained(folders: dict[str, Path], task: Any, method: Any) -> tuple[Any, torch.Tensor, dict[str, str]]:
    """The method after three large steps, its output, and the digests of what was frozen before them."""
    model = attach(base(folders, task, method), method, task, SETTINGS, seed=0)
    kept = frozen_digests(model)
    fit(
        model, [{"params": list(trainable(model).values()), "peak": 0.05}], lambda step: output(model, task).square().mean(),
        Setting(method, SETTINGS, "cpu", "float32"), 3,
    )  # fmt: skip
    with torch.no_grad():
        return model, output(model.eval(), task), kept


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", TRAINED)
@torch.no_grad()
def test_a_method_starts_as_the_base_exactly_where_theory_says_so(folders, method, task) -> None:
    model = base(folders, task, method).eval()
    before = output(model, task)
    after = output(attach(model, method, task, SETTINGS, seed=0).eval(), task)
    assert after.shape == before.shape
    assert torch.equal(after, before) == (method in STARTS_EQUAL)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", TRAINED)
def test_training_moves_the_output_and_no_frozen_byte_and_the_file_gives_it_back(folders, method, task, tmp_path) -> None:
    with torch.no_grad():
        untrained = output(attach(base(folders, task, method), method, task, SETTINGS, seed=0).eval(), task)
    model, after, kept = trained(folders, task, method)
    assert (after - untrained).abs().max() > 1e-3
    assert frozen_digests(model) == kept and bool(kept) == (method != "full")
    save_tuned(model, tmp_path)
    stored = next(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob("*.bin")) and stored.stat().st_size >= 4 * stored_numbers(model)
    with torch.no_grad():
        back = output(load_tuned(base(folders, task, method), method, task, SETTINGS, tmp_path), task)
    # the network of a reparametrised prefix was run on another number of rows: equal up to rounding
    assert torch.allclose(back, after, atol=1e-5) if method == "prefix" else torch.equal(back, after)


@pytest.mark.parametrize("method", ["bottleneck", "qlora"])
def test_a_frozen_weight_that_moves_is_seen(folders, method) -> None:
    model = attach(base(folders, "generation", method), method, "generation", SETTINGS, seed=0)
    kept = frozen_digests(model)
    name, weight = next((n, p) for n, p in model.named_parameters() if not p.requires_grad and "gate_proj" in n)
    with torch.no_grad():
        weight.view(-1)[0] += 1
    changed = {key for key, digest in frozen_digests(model).items() if kept[key] != digest}
    assert changed == {name}
    if method == "qlora":
        weight.view(-1)[0] -= 1
        weight.quant_state.absmax[0] += 1
        assert {key for key, digest in frozen_digests(model).items() if kept[key] != digest} == {name}


def test_a_reparametrised_prefix_stores_only_what_its_network_puts_out(folders) -> None:
    """And P-tuning v2 is the same prefix without the network: two layers, keys and values, two heads of width 16, three places."""
    counts = {}
    for method in ("prefix", "p_tuning_v2"):
        model = attach(base(folders, "generation", method), method, "generation", SETTINGS, seed=0)
        counts[method] = (sum(p.numel() for p in trainable(model).values()), stored_numbers(model))
    assert counts["p_tuning_v2"] == (3 * 2 * 2 * 32, 3 * 2 * 2 * 32)
    assert counts["prefix"][1] == 3 * 2 * 2 * 32 < counts["prefix"][0]


def test_a_4_bit_model_counts_its_weights_and_not_its_bytes(folders) -> None:
    assert weights_of(base(folders, "generation", "qlora")) == weights_of(base(folders, "generation", "lora"))


def test_merged_lora_equals_unmerged_and_a_wrong_merge_is_seen(folders) -> None:
    model, _, _ = trained(folders, "generation", "lora")
    assert merge_difference(model, IDS) < 1e-5
    model, _, _ = trained(folders, "generation", "lora")
    whole = model.merge_and_unload

    def broken() -> Any:
        merged = whole()
        merged.model.layers[0].mlp.up_proj.weight.data *= 1.01
        return merged

    model.merge_and_unload = broken
    assert merge_difference(model, IDS) > 1e-4


def test_a_file_of_another_method_is_refused(folders, tmp_path) -> None:
    model, _, _ = trained(folders, "generation", "bottleneck")
    save_tuned(model, tmp_path)
    with pytest.raises(UserError, match="holds no weights of the method 'full'"):
        load_tuned(base(folders, "generation", "full"), "full", "generation", SETTINGS, tmp_path)


def test_virtual_tokens_are_left_out_of_what_is_read(folders) -> None:
    """Padding must not move the mean: a text alone and beside a longer one has the same vector."""
    model = attach(base(folders, "classification", "prompt"), "prompt", "classification", SETTINGS, seed=0).eval()
    mask = torch.ones_like(IDS)
    mask[0, 8:] = 0
    with torch.no_grad():
        assert torch.allclose(pooled(model, IDS, mask)[0], pooled(model, IDS[:1, :8], mask[:1, :8])[0], atol=1e-5)
