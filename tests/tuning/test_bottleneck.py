"""The bottleneck adapter of our own: the identity at first, the reference's arithmetic after, and nothing else of the model trained."""

from __future__ import annotations

import pytest
import torch
from transformers import XmodConfig
from transformers.models.xmod.modeling_xmod import XmodAdapter

from curriculum.adaptation.model import trainable
from curriculum.errors import UserError
from curriculum.tuning.bottleneck import Adapted, Bottleneck, add_bottlenecks
from tests.adaptation.tiny_llama import config

torch.set_num_threads(1)


def test_it_starts_as_the_identity_and_the_upper_matrix_moves_first() -> None:
    adapter = Bottleneck(16, 4, generator=torch.Generator().manual_seed(0))
    h = torch.randn(3, 5, 16)
    assert torch.equal(adapter(h), h)
    adapter(h).square().sum().backward()
    assert adapter.up.weight.grad.abs().sum() > 0 and adapter.down.weight.grad.abs().sum() == 0


def test_it_equals_the_adapter_of_x_mod() -> None:
    """transformers has this adapter in X-MOD (Pfeiffer et al., 2022), whose layer adds the residual."""
    ours, theirs = Bottleneck(16, 4), XmodAdapter(XmodConfig(hidden_size=16, adapter_reduction_factor=4, hidden_act="gelu"))
    for mine, other in ((ours.down, theirs.dense1), (ours.up, theirs.dense2)):
        torch.nn.init.normal_(mine.weight), torch.nn.init.normal_(mine.bias)
        other.load_state_dict(mine.state_dict())
    h = torch.randn(2, 7, 16)
    assert torch.allclose(ours(h), h + theirs(h), atol=1e-6)
    assert not torch.allclose(ours(h), h, atol=1e-2)


def test_both_sublayers_of_every_layer_get_one_and_only_they_train() -> None:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(config())
    assert add_bottlenecks(model, 4, seed=0) == 2 * 2
    found = trainable(model)
    assert sum(p.numel() for p in found.values()) == 4 * (2 * 4 * 64 + 4 + 64)
    assert all(".adapter." in name for name in found)
    layer = model.model.layers[0]
    assert isinstance(layer.self_attn.o_proj, Adapted) and isinstance(layer.mlp.down_proj, Adapted)


def test_what_cannot_be_adapted_is_said() -> None:
    with pytest.raises(UserError, match="no layer of Sequential is named o_proj"):
        add_bottlenecks(torch.nn.Sequential(torch.nn.Linear(2, 2)), 4, seed=0)
    with pytest.raises(ValueError, match="must be positive"):
        Bottleneck(4, 0)
