"""Mistral 7B (Jiang et al., 2023: a sliding window) and Mixtral (Jiang et al., 2024: two of eight experts a token)."""

from __future__ import annotations

from typing import Any

from curriculum.transformer.bridges.llama import NAMES, decoder
from curriculum.transformer.bridges.weights import Family, layers
from curriculum.transformer.config import ModelConfig


def _window(theirs: Any) -> dict[str, Any]:
    return {"attention": ("window",), "window": theirs.sliding_window} if theirs.sliding_window else {}


def _mixtral(theirs: Any, tied: bool) -> ModelConfig:
    experts = {"experts": theirs.num_local_experts, "experts_per_token": theirs.num_experts_per_tok}
    return decoder(theirs, tied, **experts, **_window(theirs))


_EXPERTS = layers("decoder", "layers", {
    "feed_forward.router.weight": "mlp.gate.weight", "feed_forward.up": "mlp.experts.gate_up_proj", "feed_forward.down": "mlp.experts.down_proj",
})  # fmt: skip

MISTRAL = Family(("MistralForCausalLM",), lambda theirs, tied: decoder(theirs, tied, **_window(theirs)), lambda theirs: NAMES)
MIXTRAL = Family(("MixtralForCausalLM",), _mixtral, lambda theirs: NAMES | _EXPERTS)
