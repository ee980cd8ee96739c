"""Gemma (Gemma Team, 2024): gated tanh GELU, embeddings times sqrt(width), and norms that multiply by 1 + weight."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from curriculum.transformer.bridges.llama import NAMES, decoder
from curriculum.transformer.bridges.weights import Family, require
from curriculum.transformer.config import ModelConfig


def _config(theirs: Any, tied: bool) -> ModelConfig:
    require(theirs, attention_bias=False)
    if theirs.use_bidirectional_attention:
        raise ValueError("gemma: use_bidirectional_attention=True is not supported, our decoder is causal")
    return decoder(theirs, tied, embedding_scale=theirs.hidden_size**0.5)


def _add_one(name: str, value: Tensor, theirs: Any) -> Tensor:
    return 1 + value if name.endswith("norm.weight") else value


GEMMA = Family(("GemmaForCausalLM",), _config, lambda theirs: NAMES, _add_one)
