"""Llama 4's text model (Meta, 2025, as transformers has it): routed and shared experts, layers without positions, chunked attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from curriculum.transformer.bridges.llama import NAMES, decoder
from curriculum.transformer.bridges.weights import Family, layers, require
from curriculum.transformer.config import ModelConfig


def _config(theirs: Any, tied: bool) -> ModelConfig:
    depth = theirs.num_hidden_layers
    every = theirs.moe_layers[0] + 1 if theirs.moe_layers else 0
    rotary = [bool(flag) for flag in theirs.no_rope_layers[:depth]]  # 1 stands for a layer with positions, whatever the name says
    require(
        theirs, attention_bias=False, layer_types=["chunked_attention" if flag else "full_attention" for flag in rotary],
        moe_layers=list(range(every - 1, depth, every)) if every else [],
    )  # fmt: skip
    experts = {
        "experts": theirs.num_local_experts, "experts_per_token": theirs.num_experts_per_tok, "shared_experts": 1, "router": "sigmoid",
        "expert_hidden": theirs.intermediate_size, "moe_every": every,
    }  # fmt: skip
    return decoder(
        theirs, tied, hidden=theirs.intermediate_size_mlp, attention=tuple("chunk" if flag else "nope" for flag in rotary),
        window=theirs.attention_chunk_size or 0, qk_norm="l2" if theirs.use_qk_norm else "",
        temperature=(theirs.floor_scale, theirs.attn_scale) if theirs.attn_temperature_tuning else None, **(experts if every else {}),
    )  # fmt: skip


def _change(name: str, value: Tensor, theirs: Any) -> Tensor:
    """Experts input by output are transposed; rows of neighbouring rotary pairs (2i, 2i + 1) become halves (i, i + D/2), as ours turn."""
    if ".experts." in name:
        return value.transpose(1, 2)
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        return value.view(-1, theirs.head_dim // 2, 2, value.shape[1]).transpose(1, 2).reshape(value.shape)
    return value


def _names(theirs: Any) -> dict[str, str]:
    own = layers("decoder", "layers", {
        "feed_forward.up.*": "feed_forward.gate_proj.* feed_forward.up_proj.*",
        "feed_forward.down.*": "feed_forward.down_proj.*",
        "feed_forward.up": "feed_forward.experts.gate_up_proj",
        "feed_forward.down": "feed_forward.experts.down_proj",
        "feed_forward.router.weight": "feed_forward.router.weight",
        "feed_forward.shared.up.*": "feed_forward.shared_expert.gate_proj.* feed_forward.shared_expert.up_proj.*",
        "feed_forward.shared.down.*": "feed_forward.shared_expert.down_proj.*",
    })  # fmt: skip
    return NAMES | own


LLAMA4 = Family(("Llama4ForCausalLM",), _config, _names, _change)
