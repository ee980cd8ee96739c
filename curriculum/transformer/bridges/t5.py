"""T5 (Raffel et al., 2020): encoder-decoder with a relative bias a stack. v1.0 has ReLU and a tied, scaled output; v1.1 neither."""

from __future__ import annotations

from typing import Any

from curriculum.transformer.bridges.weights import Family, activation, layers, require
from curriculum.transformer.config import ModelConfig

_SELF, _ACROSS = "layer.0.SelfAttention", "layer.1.EncDecAttention"


def _config(theirs: Any, tied: bool) -> ModelConfig:
    require(theirs, is_encoder_decoder=True)
    return ModelConfig(
        vocab_size=theirs.vocab_size, layers=theirs.num_decoder_layers, encoder_layers=theirs.num_layers, width=theirs.d_model,
        heads=theirs.num_heads, kv_heads=theirs.num_heads, head_dim=theirs.d_kv, hidden=theirs.d_ff, norm_eps=theirs.layer_norm_epsilon,
        stack="encoder-decoder", activation=activation(theirs, theirs.dense_act_fn, gated=theirs.is_gated_act), position="t5",
        bias_buckets=theirs.relative_attention_num_buckets, bias_distance=theirs.relative_attention_max_distance, score_scale=1.0, tied=tied,
        output_scale=theirs.d_model**-0.5 if theirs.scale_decoder_outputs else 1.0,
    )  # fmt: skip


def _names(theirs: Any) -> dict[str, str]:
    names = {"embedding.weight": "shared.weight", "output.weight": "lm_head.weight"}
    return names | _stack("encoder", "layer.1", theirs.is_gated_act) | _stack("decoder", "layer.2", theirs.is_gated_act)


def _stack(stack: str, feed_forward: str, gated: bool) -> dict[str, str]:
    dense = f"{feed_forward}.DenseReluDense"
    once = {
        f"{stack}.norm.*": f"{stack}.final_layer_norm.*",
        f"{stack}.bias.buckets.weight": f"{stack}.block.0.{_SELF}.relative_attention_bias.weight",
    }
    return once | layers(stack, f"{stack}.block", {
        "attention_norm.*": "layer.0.layer_norm.*",
        "attention.qkv.*": f"{_SELF}.q.* {_SELF}.k.* {_SELF}.v.*",
        "attention.out.*": f"{_SELF}.o.*",
        "across_norm.*": "layer.1.layer_norm.*",
        "across.qkv.*": f"{_ACROSS}.q.*",
        "across.kv.*": f"{_ACROSS}.k.* {_ACROSS}.v.*",
        "across.out.*": f"{_ACROSS}.o.*",
        "feed_forward_norm.*": f"{feed_forward}.layer_norm.*",
        "feed_forward.up.*": f"{dense}.wi_0.* {dense}.wi_1.*" if gated else f"{dense}.wi.*",
        "feed_forward.down.*": f"{dense}.wo.*",
    })  # fmt: skip


T5 = Family(classes=("T5ForConditionalGeneration",), config=_config, names=_names)
