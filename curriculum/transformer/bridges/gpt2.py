"""GPT-2 (Radford et al., 2019), GPT-3's outline: pre-norm decoder with learned positions. The library stores matrices input by output."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from curriculum.transformer.bridges.weights import Family, activation, layers, require
from curriculum.transformer.config import ModelConfig


def _config(theirs: Any, tied: bool) -> ModelConfig:
    require(theirs, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return ModelConfig(
        vocab_size=theirs.vocab_size, layers=theirs.n_layer, width=theirs.n_embd, heads=theirs.n_head, kv_heads=theirs.n_head,
        hidden=theirs.n_inner or 4 * theirs.n_embd, norm_eps=theirs.layer_norm_epsilon, norm="layer",
        activation=activation(theirs, theirs.activation_function, gated=False), position="learned", max_positions=theirs.n_positions,
        biases=True, tied=tied, score_scale=0.0 if theirs.scale_attn_weights else 1.0,
    )  # fmt: skip


def _transpose(name: str, value: Tensor, theirs: Any) -> Tensor:
    return value.T if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else value


GPT2 = Family(
    classes=("GPT2LMHeadModel",),
    config=_config,
    names=lambda theirs: {
        "embedding.weight": "wte.weight", "positions.weight": "wpe.weight", "decoder.norm.*": "ln_f.*", "output.weight": "lm_head.weight",
    }
    | layers("decoder", "h", {
        "attention_norm.*": "ln_1.*", "attention.qkv.*": "attn.c_attn.*", "attention.out.*": "attn.c_proj.*",
        "feed_forward_norm.*": "ln_2.*", "feed_forward.up.*": "mlp.c_fc.*", "feed_forward.down.*": "mlp.c_proj.*",
    }),
    change=_transpose,
)
