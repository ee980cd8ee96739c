from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from curriculum.adaptation.lora import LoraLinear

torch.set_num_threads(1)


def trained(rank: int, alpha: float, inputs: int = 24, outputs: int = 16, seed: int = 0) -> LoraLinear:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layer = LoraLinear(nn.Linear(inputs, outputs), rank, alpha, generator=generator)
    with torch.no_grad():
        layer.b.normal_(generator=generator)
    return layer


def test_equals_peft_from_the_same_weights():
    ours = trained(rank=4, alpha=8)
    theirs = get_peft_model(nn.Sequential(copy.deepcopy(ours.base)), LoraConfig(r=4, lora_alpha=8, target_modules=["0"]))
    layer = theirs.base_model.model[0]
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(ours.a)
        layer.lora_B["default"].weight.copy_(ours.b)
    x = torch.randn(5, 7, 24)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert not torch.allclose(ours(x), ours.base(x), atol=1e-2)


def test_starts_equal_to_the_base_and_trains_only_the_adapter():
    layer = LoraLinear(nn.Linear(24, 16), 4, 8)
    x = torch.randn(3, 24)
    assert torch.equal(layer(x), layer.base(x))
    layer(x).square().sum().backward()
    assert layer.base.weight.grad is None and layer.base.bias.grad is None
    assert layer.b.grad.abs().sum() > 0


@settings(max_examples=25, deadline=None)
@given(rank=st.integers(1, 16), alpha=st.floats(0.5, 64), seed=st.integers(0, 1000))
def test_merged_equals_unmerged(rank, alpha, seed):
    layer = trained(rank, alpha, seed=seed)
    x = torch.randn(4, 24, generator=torch.Generator().manual_seed(seed))
    weight, apart = layer.base.weight.clone(), layer(x)
    scale = apart.abs().max()
    layer.merge()
    assert torch.allclose(layer(x), apart, atol=float(1e-5 * scale))
    assert torch.linalg.matrix_rank(layer.base.weight - weight) <= rank
    layer.unmerge()
    assert torch.allclose(layer.base.weight, weight, atol=float(1e-5 * scale))


def test_impossible_rank():
    with pytest.raises(ValueError, match=r"rank must lie in \[1, 16\]"):
        LoraLinear(nn.Linear(24, 16), 17, 8)
