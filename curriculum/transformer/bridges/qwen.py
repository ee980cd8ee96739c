"""Qwen 2 (Qwen Team, 2024: biases on queries, keys and values) and Qwen 3 (2025: norms of each head's queries and keys instead)."""

from __future__ import annotations

from typing import Any

from curriculum.transformer.bridges.llama import NAMES, decoder
from curriculum.transformer.bridges.weights import Family, layers, require
from curriculum.transformer.config import ModelConfig

_KINDS = {"full_attention": "full", "sliding_attention": "window"}
_HEAD_NORMS = layers("decoder", "layers", {"attention.q_norm.*": "self_attn.q_norm.*", "attention.k_norm.*": "self_attn.k_norm.*"})


def _config(theirs: Any, tied: bool, **own: Any) -> ModelConfig:
    strange = set(theirs.layer_types) - set(_KINDS)
    if strange:
        raise ValueError(f"{theirs.model_type}: layer_types {sorted(strange)} are not supported, only {', '.join(_KINDS)}")
    return decoder(theirs, tied, attention=tuple(_KINDS[kind] for kind in theirs.layer_types), window=theirs.sliding_window or 0, **own)


def _qwen3(theirs: Any, tied: bool) -> ModelConfig:
    require(theirs, attention_bias=False)
    return _config(theirs, tied, qk_norm="rms")


QWEN2 = Family(("Qwen2ForCausalLM",), lambda theirs, tied: _config(theirs, tied, qkv_biases=True), lambda theirs: NAMES)
QWEN3 = Family(("Qwen3ForCausalLM",), _qwen3, lambda theirs: NAMES | _HEAD_NORMS)
