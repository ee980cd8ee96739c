"""Tiny random models of transformers, one a family, in which every part that a bridge could get wrong matters.

Weights of norms and all biases are random too, so that nothing is 1 or 0; windows, chunks, trained lengths and bucket ranges are
shorter than the inputs of the parity study.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

VOCABULARY = 97
_SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
_GROUPED = _SIZES | {"num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-3, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCABULARY, "d_model": 48, "d_kv": 10, "d_ff": 56, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
    "decoder_start_token_id": 0, "layer_norm_epsilon": 1e-3,
}  # fmt: skip
TOYS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", _SIZES | {"max_position_embeddings": 160, "type_vocab_size": 3, "layer_norm_eps": 1e-3}),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": VOCABULARY, "n_positions": 160, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_inner": 56,
                                 "layer_norm_epsilon": 1e-3, "bos_token_id": 0, "eos_token_id": 0}),
    "t5": ("T5ForConditionalGeneration", _T5),
    "t5_v1_1": ("T5ForConditionalGeneration", _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "llama": ("LlamaForCausalLM", _GROUPED | {"rope_parameters": _LLAMA3}),
    "llama_tied": ("LlamaForCausalLM", _GROUPED | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama4": ("Llama4ForCausalLM", _GROUPED | {
        "num_hidden_layers": 5, "intermediate_size_mlp": 40, "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
        "no_rope_layer_interval": 3, "attention_chunk_size": 16, "floor_scale": 8, "attn_scale": 0.5}),
    "mistral": ("MistralForCausalLM", _GROUPED | {"sliding_window": 8}),
    "mixtral": ("MixtralForCausalLM", _GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma": ("GemmaForCausalLM", _GROUPED | {"hidden_act": "gelu_pytorch_tanh"}),
    "qwen2": ("Qwen2ForCausalLM", _GROUPED | {"head_dim": 12, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
    "qwen3": ("Qwen3ForCausalLM", _GROUPED),
}  # fmt: skip


def toy(name: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """The random model ``name`` of :data:`TOYS`, in evaluation mode; ``options`` replace those of its configuration."""
    import transformers

    class_name, given = TOYS[name]
    model_class = getattr(transformers, class_name)
    model = model_class(model_class.config_class(**(given | options))).eval()
    if name == "t5_v1_1":  # the library ties the output of a new T5; released v1.1 weights have one of their own, and it keeps that
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.shared.weight))
    randomise(model, seed)
    return model


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Draw every parameter anew: matrices with a spread that keeps activations alive, gains in 0.5 to 1.5, biases about 0.3."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if value.dim() > 1:
            value.normal_(std=0.15, generator=generator)
        elif name.endswith("bias"):
            value.normal_(std=0.3, generator=generator)
        else:
            value.uniform_(0.5, 1.5, generator=generator)
