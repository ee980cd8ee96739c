"""A causal language model in NF4 with LoRA adapters: loading, saving, and its loss on packed blocks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from curriculum.adaptation.settings import AdapterSettings
from curriculum.errors import UserError
from curriculum.losses import chunked_cross_entropy, token_losses
from curriculum.results import Identity

BASE_FILE = "base.json"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        UserError: it has no end token, which packing joins documents with.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer in {folder} has no end-of-text token; set eos_token in its tokenizer_config.json")
    return tokenizer


def load_base(folder: Path, settings: AdapterSettings, *, device: str, precision: str = "float32") -> PreTrainedModel:
    """The frozen base model: linear layers in NF4 when ``settings`` say so, the rest in ``precision`` (float32 on a CPU)."""
    dtype = torch.float32 if device == "cpu" else getattr(torch, precision)
    quantised = None
    if settings.quantisation == "nf4":
        quantised = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=settings.double_quantisation,
        )
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=quantised, device_map={"": device})
    model.requires_grad_(False)
    model.config.use_cache = False
    same_arithmetic_everywhere(model)
    if device == "cpu":
        leave_the_file(model)
    return model


def leave_the_file(model: torch.nn.Module) -> None:
    """Copy what still points into the mapped weights file: one such tensor keeps all the pages read from it in memory."""
    for part in model.modules():
        for value in part.parameters(recurse=False):
            if value.is_floating_point():
                value.data = value.data.clone()


def same_arithmetic_everywhere(model: torch.nn.Module) -> None:
    """Keep 4-bit layers from repacking their weights for AVX512-BF16 on the first evaluation.

    The repacked layer computes in bfloat16 and has no gradient, so a model that is evaluated and then trained would not train.
    """
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False


def add_adapter(model: PreTrainedModel, settings: AdapterSettings, *, seed: int) -> PeftModel:
    """``model`` with new LoRA adapters, in training mode; the base stays frozen.

    Raises:
        UserError: no layer has one of ``settings.target_modules`` as its name.
    """
    torch.manual_seed(seed)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, bias="none", task_type="CAUSAL_LM",
        target_modules=list(settings.target_modules),
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        names = sorted({name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)})
        raise UserError(f"adapter.target_modules {settings.target_modules} match no layer; this model has {', '.join(names)}") from error
    if settings.gradient_checkpointing:
        adapted.get_base_model().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapted.train()
    return adapted


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_adapter(model: PeftModel, out: Path, base: Identity) -> None:
    """Write a peft adapter directory, and ``base.json``: the source and digest of the model it belongs to."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = base.source  # not the cache folder of this machine
    model.save_pretrained(out, safe_serialization=True, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # peft's blank model card
    (out / BASE_FILE).write_text(base.model_dump_json(indent=1) + "\n", encoding="utf-8")


def base_of(adapter: Path) -> Identity:
    """The base model an adapter directory belongs to."""
    return Identity.model_validate(json.loads((adapter / BASE_FILE).read_text(encoding="utf-8")))


def load_adapter(model: PreTrainedModel, adapter: Path, base: Identity | None = None) -> PeftModel:
    """``model`` with the adapter from a directory, for inference.

    Raises:
        UserError: the adapter was made on a base model other than ``base``.
    """
    made_on = base_of(adapter)
    if base is not None and made_on.digest != base.digest:
        raise UserError(
            f"the adapter was trained on {made_on.source} ({made_on.digest}), but {base.source} is now {base.digest}; train it again"
        )
    with quiet():
        return PeftModel.from_pretrained(model, adapter, is_trainable=False).eval()


def _parts(model: torch.nn.Module) -> tuple[torch.nn.Module, torch.Tensor]:
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return base.get_decoder(), base.get_output_embeddings().weight


def block_loss(model: torch.nn.Module, blocks: torch.Tensor, *, chunk: int) -> torch.Tensor:
    """Mean next-token cross-entropy in nats over ``blocks`` int64 [batch, block + 1]; differentiable."""
    decoder, head = _parts(model)
    hidden = decoder(input_ids=blocks[:, :-1], use_cache=False).last_hidden_state
    return chunked_cross_entropy(hidden.flatten(0, 1), head, blocks[:, 1:].flatten(), chunk=chunk)


@torch.no_grad()
def block_losses(
    model: torch.nn.Module, blocks: torch.Tensor, *, chunk: int, device: str = "cpu", batch_size: int = 4
) -> torch.Tensor:
    """Mean next-token cross-entropy of each of ``blocks`` int64 [n, block + 1], in nats: float64 [n]. In evaluation mode.

    Several blocks a forward pass, because each pass de-quantises every weight once.
    """
    decoder, head = _parts(model)
    training = model.training
    model.eval()
    losses = []
    for batch in blocks.split(batch_size):
        ids = batch.to(device)
        hidden = decoder(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        scored = token_losses(hidden.flatten(0, 1), head, ids[:, 1:].flatten(), chunk=chunk)
        losses.append(scored.double().view(len(batch), -1).mean(1).cpu())
    model.train(training)
    return torch.cat(losses)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of the model library: progress goes to the asset's log."""
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
