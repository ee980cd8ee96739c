"""Llama (Touvron et al., 2023; Llama 3.1, 2024), and what the decoders that follow its recipe share with it."""

from __future__ import annotations

from typing import Any

from curriculum.transformer.bridges.weights import Family, activation, layers, require, rope
from curriculum.transformer.config import ModelConfig

NAMES = {"embedding.weight": "embed_tokens.weight", "decoder.norm.weight": "norm.weight", "output.weight": "lm_head.weight"} | layers(
    "decoder", "layers", {
        "attention_norm.*": "input_layernorm.*",
        "attention.qkv.*": "self_attn.q_proj.* self_attn.k_proj.* self_attn.v_proj.*",
        "attention.out.*": "self_attn.o_proj.*",
        "feed_forward_norm.*": "post_attention_layernorm.*",
        "feed_forward.up.*": "mlp.gate_proj.* mlp.up_proj.*",
        "feed_forward.down.*": "mlp.down_proj.*",
    },
)  # fmt: skip


def decoder(theirs: Any, tied: bool, **own: Any) -> ModelConfig:
    """The recipe's configuration, with a family's ``own`` fields put in or over it."""
    theta, scaling = rope(theirs)
    shared = {
        "vocab_size": theirs.vocab_size, "layers": theirs.num_hidden_layers, "width": theirs.hidden_size, "heads": theirs.num_attention_heads,
        "kv_heads": theirs.num_key_value_heads, "head_dim": getattr(theirs, "head_dim", None) or 0, "hidden": theirs.intermediate_size,
        "norm_eps": theirs.rms_norm_eps, "activation": activation(theirs, theirs.hidden_act, gated=True), "rope_theta": theta,
        "rope_scaling": scaling, "tied": tied,
    }  # fmt: skip
    return ModelConfig(**(shared | own))


def _config(theirs: Any, tied: bool) -> ModelConfig:
    require(theirs, mlp_bias=theirs.attention_bias)  # our blocks have biases on all linear layers or on none
    return decoder(theirs, tied, biases=theirs.attention_bias)


LLAMA = Family(classes=("LlamaForCausalLM",), config=_config, names=lambda theirs: NAMES)
