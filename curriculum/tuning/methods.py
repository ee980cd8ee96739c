"""Every method put on a model of either task: loading, attaching, saving, loading again, and what stayed frozen.

LoRA, prefix tuning, prompt tuning and IA3 are peft's. Its prefix tuning with reparametrisation (the prefix comes from a small
network while it is trained) is Li and Liang's; without, the vectors of every layer are trained themselves, which is P-tuning v2.
Both start from keys and values of zero, which still take attention from the text, so that they do not start as the base.
A soft prompt starts from embeddings of random entries of the vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging

from curriculum.adaptation.model import leave_the_file, load_base, quiet, same_arithmetic_everywhere, trainable
from curriculum.adaptation.settings import AdapterSettings
from curriculum.errors import UserError
from curriculum.tuning.bottleneck import add_bottlenecks
from curriculum.tuning.settings import Method, TuningSettings

Task = Literal["generation", "classification"]
_WEIGHTS = "weights.safetensors"
_TASK_TYPES = {"generation": "CAUSAL_LM", "classification": "FEATURE_EXTRACTION"}


def load_frozen(folder: Path, task: Task, method: Method, *, device: str, precision: str) -> PreTrainedModel:
    """The base model without a gradient: its linear layers in NF4 for ``qlora``, in float32 where all of it is trained. Dropout is off."""
    precision = "float32" if method == "full" else precision
    if task == "generation":
        quantisation = "nf4" if method == "qlora" else "none"
        model = load_base(folder, AdapterSettings(quantisation=quantisation), device=device, precision=precision)
    else:
        model = _load_encoder(folder, method, device=device, precision=precision)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return model


def _load_encoder(folder: Path, method: Method, *, device: str, precision: str) -> PreTrainedModel:
    dtype = torch.float32 if device == "cpu" else getattr(torch, precision)
    quantised = None
    if method == "qlora":
        quantised = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    options: dict[str, Any] = {"dtype": dtype, "quantization_config": quantised, "device_map": {"": device}}
    with quiet(), _no_report():
        try:
            model = AutoModel.from_pretrained(folder, add_pooling_layer=False, **options)
        except TypeError:  # an architecture that has no pooling layer to leave out
            model = AutoModel.from_pretrained(folder, **options)
    model.requires_grad_(False)
    same_arithmetic_everywhere(model)
    if device == "cpu":
        leave_the_file(model)
    return model


@contextlib.contextmanager
def _no_report() -> Iterator[None]:
    """No table of the pooling layer's weights, which are left in the file on purpose."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def attach(model: PreTrainedModel, method: Method, task: Task, settings: TuningSettings, *, seed: int) -> nn.Module:
    """``model`` made trainable by ``method``, in training mode; what it adds is drawn from ``seed``.

    Raises:
        UserError: peft or the bottleneck adapters do not know the layers of this architecture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if method == "full":
            model.requires_grad_(True)
        elif method == "bottleneck":
            add_bottlenecks(model, settings.bottleneck, seed=seed)
        elif method != "none":
            try:
                return get_peft_model(model, _peft_config(method, task, settings)).train()
            except ValueError as error:
                raise UserError(f"{method} cannot be put on {type(model).__name__}: {error}") from error
    return model.train()


def _peft_config(method: Method, task: Task, settings: TuningSettings) -> Any:
    kind = _TASK_TYPES[task]
    if method in ("lora", "qlora"):
        return LoraConfig(task_type=kind, r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", bias="none")
    if method == "ia3":
        return IA3Config(task_type=kind)  # keys, values and the feed-forward's last layer, as the paper has it
    if method == "prompt":
        return PromptTuningConfig(task_type=kind, num_virtual_tokens=settings.virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB")
    return PrefixTuningConfig(
        task_type=kind, num_virtual_tokens=settings.virtual_tokens, prefix_projection=method == "prefix",
        encoder_hidden_size=settings.prefix_hidden, init_weights="zero",
    )  # fmt: skip


def token_logits(model: nn.Module, ids_BT: torch.Tensor) -> torch.Tensor:
    """[batch, tokens, vocabulary]: of the text's own tokens, not of virtual ones."""
    return model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False).logits[:, -ids_BT.shape[1] :]


def pooled(model: nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """[batch, width]: the mean of the last layer over the text's own tokens, which is how MiniLM was trained to be read."""
    hidden_BTD = model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state[:, -ids_BT.shape[1] :]
    mask_BT1 = mask_BT.unsqueeze(-1).to(hidden_BTD.dtype)
    return (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


def weights_of(model: nn.Module) -> int:
    """How many weights a model has, whatever they are stored in."""
    return sum((state.shape if (state := getattr(p, "quant_state", None)) is not None else p.shape).numel() for p in model.parameters())


def stored_numbers(model: nn.Module) -> int:
    """How many numbers a saved task has; of a reparametrised prefix only what its network puts out."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False) if isinstance(model, PeftModel) else trainable(model)
    return sum(value.numel() for value in state.values())


def save_tuned(model: nn.Module, folder: Path) -> None:
    """Write what was trained as safetensors: peft's own layout, or the trained weights by name."""
    if isinstance(model, PeftModel):
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: p.detach().contiguous() for name, p in trainable(model).items()}, folder / _WEIGHTS)


def load_tuned(model: PreTrainedModel, method: Method, task: Task, settings: TuningSettings, folder: Path) -> nn.Module:
    """A fresh base ``model`` with what :func:`save_tuned` wrote, for inference.

    Raises:
        UserError: the file lacks weights that the method trains, or holds others.
    """
    if method not in ("full", "bottleneck"):
        with quiet():
            return PeftModel.from_pretrained(model, folder, is_trainable=False).eval()
    tuned = attach(model, method, task, settings, seed=0)
    kept, wanted = load_file(folder / _WEIGHTS), trainable(tuned)
    if kept.keys() != wanted.keys():
        raise UserError(f"{folder} holds no weights of the method '{method}' with these settings; save it again")
    with torch.no_grad():
        for name, value in kept.items():
            wanted[name].copy_(value)
    return tuned.eval()


def frozen_digests(model: nn.Module) -> dict[str, str]:
    """Frozen tensor -> digest of its bytes, the constants of 4-bit weights included."""
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            continue
        digest = hashlib.blake2b(_bytes(p))
        if (state := getattr(p, "quant_state", None)) is not None:
            digest.update(_bytes(state.absmax))
        found[name] = digest.hexdigest()
    return found


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


@torch.no_grad()
def merge_difference(model: PeftModel, ids_BT: torch.Tensor) -> float:
    """Largest change of a logit when LoRA is merged into the weights, as a share of the largest logit. ``model`` is used up."""
    model.eval()
    apart = token_logits(model, ids_BT)
    merged = token_logits(model.merge_and_unload(), ids_BT)
    return float((merged - apart).abs().max() / apart.abs().max())
