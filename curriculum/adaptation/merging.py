"""An adapter merged into full-precision weights, as safetensors and as a GGUF file: a model that needs neither peft nor bitsandbytes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from curriculum.adaptation.gguf_writer import write_gguf
from curriculum.adaptation.model import load_adapter, load_base, load_tokenizer
from curriculum.adaptation.settings import AdapterSettings
from curriculum.artifacts import ModelArtifact
from curriculum.errors import UserError
from curriculum.results import Identity

GGUF_NAME = "model.f16.gguf"
_WRAPPED = "base_model.model."  # what peft puts before the name of a layer


def merge_adapter(
    adapter: ModelArtifact, settings: AdapterSettings, *, folder: Path, base: Identity, out: Path, device: str, precision: str,
    progress: Callable[[str], None],
) -> ModelArtifact:  # fmt: skip
    """Write under ``out`` the base that ``adapter`` was trained on, de-quantised, with the adapter in its weights; tokenizer and GGUF too.

    It needs the memory of the model in full precision: float32 on a CPU, else ``precision``. Where the model or its tokenizer is
    one that the GGUF writer does not know, the fact ``gguf`` is empty and the progress says why.

    Raises:
        UserError: the adapter was trained on another base.
    """
    quantised = load_base(folder, settings, device=device, precision=precision)
    plain = plain_copy(quantised)
    updates = adapter_updates(load_adapter(quantised, adapter.path, base))
    del quantised
    merge(plain, updates)
    progress(f"{len(updates)} matrices of {base.source} have the adapter in them")
    plain.save_pretrained(out)
    load_tokenizer(folder).save_pretrained(out)
    return ModelArtifact(out, {"base": base.source, "base_digest": base.digest, "merged_matrices": len(updates), "gguf": _gguf(out, progress)})


def _gguf(folder: Path, progress: Callable[[str], None]) -> str:
    try:
        return write_gguf(folder, folder / GGUF_NAME, "F16").name
    except UserError as error:
        (folder / GGUF_NAME).unlink(missing_ok=True)
        progress(f"no GGUF file: {error}")
        return ""


@torch.no_grad()
def plain_copy(model: PreTrainedModel) -> PreTrainedModel:
    """``model`` with every 4-bit matrix de-quantised, as an ordinary model of the same values on the CPU; ``model`` stays as it is."""
    import bitsandbytes

    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    for name, part in model.named_modules():
        if isinstance(part, bitsandbytes.nn.Linear4bit):
            value = bitsandbytes.functional.dequantize_4bit(part.weight.data, part.weight.quant_state)
            weights[f"{name}.weight"] = value.to(part.compute_dtype or value.dtype).cpu()
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.use_cache = True  # which training turned off
    plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    wanted = plain.state_dict()
    plain.load_state_dict({name: weights[name] for name in wanted})  # without the constants of the 4-bit blocks
    plain.generation_config = model.generation_config
    return plain.requires_grad_(False).eval()


def adapter_updates(adapted: PeftModel) -> dict[str, torch.Tensor]:
    """What a LoRA adapter adds to each matrix, by the layer's name in the base: (alpha / rank) B A, float32 [out, in] on the CPU."""
    found = {}
    for name, part in adapted.named_modules():
        if isinstance(part, LoraLayer):
            (active,) = part.active_adapters
            a, b = (side[active].weight.detach().float().cpu() for side in (part.lora_A, part.lora_B))
            found[name.removeprefix(_WRAPPED)] = part.scaling[active] * b @ a
    return found


@torch.no_grad()
def merge(model: nn.Module, updates: dict[str, torch.Tensor]) -> None:
    """Add ``updates`` to the weights of ``model``, in place."""
    for name, update in updates.items():
        weight = model.get_submodule(name).weight
        weight.copy_((weight.float() + update).to(weight.dtype))
