"""A transformers folder of a Llama-family model as a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig

from curriculum.errors import UserError

GgufType = Literal["F32", "F16"]
_LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
_ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write_gguf(folder: Path, path: Path, kind: GgufType) -> Path:
    """Write the safetensors, the configuration and the tokenizer in ``folder`` to ``path``; matrices as ``kind``, norms in float32.

    Raises:
        UserError: the architecture, its rotary scaling, or its tokenizer is one that this writer does not know.
    """
    from gguf import GGUFWriter, LlamaFileType

    config, tokenizer = AutoConfig.from_pretrained(folder), json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    _refuse_unknown(config)
    splitter = _pre_tokenizer(tokenizer)
    writer = GGUFWriter(path, "llama")
    try:
        writer.add_file_type(LlamaFileType.ALL_F32 if kind == "F32" else LlamaFileType.MOSTLY_F16)
        _add_shape(writer, config)
        _add_tokenizer(writer, config, tokenizer, splitter, folder)
        for name, value in _tensors(folder, config):
            matrix = value.half() if kind == "F16" and value.dim() > 1 else value.float()
            writer.add_tensor(name, matrix.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return path


def _refuse_unknown(config: PretrainedConfig) -> None:
    rope = config.rope_parameters.get("rope_type", "default")
    biased = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
    if config.model_type != "llama" or rope != "default" or biased:
        raise UserError(
            f"a GGUF file is written here for Llama-family models with plain rotary positions and without biases, not for {config.model_type} "
            f"with rotary positions '{rope}'{' and biases' if biased else ''}; use llama.cpp's converter on the merged folder"
        )


def _pre_tokenizer(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of the way a byte-level BPE cuts text before it merges.

    Raises:
        UserError: it is no byte-level BPE, or cuts in another way than the two known here.
    """
    parts = tokenizer.get("pre_tokenizer") or {}
    steps = [(step["type"], step.get("individual_digits", False)) for step in parts.get("pretokenizers", [parts]) if step]
    known = {(("ByteLevel", False),): "gpt-2", (("Digits", True), ("ByteLevel", False)): "smollm"}
    if tokenizer["model"]["type"] != "BPE" or tokenizer.get("normalizer") or tuple(steps) not in known:
        raise UserError(
            f"a GGUF file names how its tokenizer cuts text, and {' + '.join(name for name, _ in steps) or 'no cutting'} before a "
            f"{tokenizer['model']['type']} has no name here; use llama.cpp's converter on the merged folder"
        )
    return known[tuple(steps)]


def _add_shape(writer: Any, config: PretrainedConfig) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, config: PretrainedConfig, tokenizer: dict[str, Any], splitter: str, folder: Path) -> None:
    from gguf import TokenType

    names = {index: token for token, index in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(names, TokenType.NORMAL)
    for added in tokenizer["added_tokens"]:
        names[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list([names.get(i, f"[PAD{i}]") for i in range(config.vocab_size)])  # a model may have more rows than its tokenizer
    writer.add_token_types([kinds.get(i, TokenType.UNUSED) for i in range(config.vocab_size)])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    ids = {token: index for index, token in names.items()}
    given = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name in ("bos", "eos", "unk", "pad"):
        token = given.get(f"{name}_token")
        token = token["content"] if isinstance(token, dict) else token
        if token in ids:
            getattr(writer, f"add_{name}_token_id")(ids[token])
    template = folder / "chat_template.jinja"
    if template.exists():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def _tensors(folder: Path, config: PretrainedConfig) -> Any:
    """(GGUF name, tensor) of every weight; what is no weight of a Llama is refused by the names, and a tied head is left out."""
    known = {f"model.layers.{i}.{name}.weight": f"blk.{i}.{short}.weight" for i in range(config.num_hidden_layers) for short, name in _LAYER.items()}
    known |= {f"{name}.weight": f"{short}.weight" for short, name in _ENDS.items()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - safe_open is no mapping
                if name not in known:
                    raise UserError(f"{file.name} has a tensor '{name}', which a Llama-family GGUF file has no place for")
                if name == "lm_head.weight" and config.tie_word_embeddings:
                    continue
                value, short = weights.get_tensor(name), known[name].split(".")[-2]
                yield known[name], interleave(value, heads[short]) if short in heads else value


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key matrix [heads x head size, in] in GGUF's order, where the two halves that rotary positions turn alternate."""
    return weight.view(heads, 2, weight.shape[0] // heads // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
