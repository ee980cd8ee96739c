"""One language model or reader in every number format that its libraries run on a processor, and how many bytes each holds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from curriculum.adaptation.model import quiet

KEPT = ("lm_head", "qa_outputs")  # output layers, of a language model and of a reader: they stay in the precision beside the blocks


def _plain(folder: Path, kind: Any, dtype: torch.dtype = torch.float32, config: BitsAndBytesConfig | None = None) -> PreTrainedModel:
    with quiet():
        return kind.from_pretrained(folder, dtype=dtype, quantization_config=config, device_map={"": "cpu"}).eval()


def dynamic_int8(model: nn.Module, *, keep: Collection[str] = ()) -> nn.Module:
    """``model`` with its linear layers in PyTorch's dynamic int8, weights by rows, inputs by tensor as they come; changed in place.

    The layers called as in ``keep`` stay as they are.
    """
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    names = {name: per_channel_dynamic_qconfig for name, part in model.named_modules() if isinstance(part, nn.Linear) and name not in keep}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is on its way out of torch, and says so at every call
        return quantize_dynamic(model, names, inplace=True)


def _int8_bnb(folder: Path, kind: Any) -> PreTrainedModel:
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # it says at every product that it rounds to float16 first
    return _plain(folder, kind, config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(KEPT)))


def _nf4(folder: Path, kind: Any) -> PreTrainedModel:
    four_bit = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": list(KEPT)}
    return _plain(folder, kind, config=BitsAndBytesConfig(load_in_4bit=True, **four_bit))


# the linear layers of the blocks in each format; the embedding, which may be the output layer too, stays in the precision beside them
FORMATS: Mapping[str, Callable[[Path, Any], nn.Module]] = {
    "fp32": _plain,
    "bf16": lambda folder, kind: _plain(folder, kind, torch.bfloat16),
    "int8_dynamic": lambda folder, kind: dynamic_int8(_plain(folder, kind), keep=KEPT),
    "int8_bnb": _int8_bnb,
    "nf4": _nf4,
}


def in_format(name: str, folder: Path, kind: Any = AutoModelForCausalLM) -> nn.Module:
    """The model in ``folder``, as transformers' class ``kind`` loads it, in a format of ``FORMATS``."""
    return FORMATS[name](folder, kind)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of every distinct weight and of the constants that decode it; a tied weight counts once."""
    tensors = list(_tensors(model))  # all alive at once: a freed one's address would be another's
    return sum({tensor.untyped_storage().data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for part in model.modules():
        for weight in [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            yield weight
            for state in (weight, getattr(weight, "quant_state", None)):
                yield from _constants(state)
        yield from _constants(getattr(part, "state", None))  # where an int8 layer moves its scales at the first product
        if callable(getattr(part, "weight", None)):  # of PyTorch's quantised layers
            yield from _packed(part)


def _constants(state: Any) -> Iterator[Tensor]:
    """What bitsandbytes keeps beside the codes: scales of rows, or scales of blocks with their own codes."""
    for name in ("SCB", "absmax", "code", "offset"):
        if isinstance(found := getattr(state, name, None), Tensor):
            yield found
    if (nested := getattr(state, "state2", None)) is not None:
        yield from _constants(nested)


def _packed(part: Any) -> Iterator[Tensor]:
    weight = part.weight()
    yield weight.int_repr()
    if weight.qscheme() in {torch.per_channel_affine, torch.per_channel_symmetric}:
        yield weight.q_per_channel_scales().float()  # the kernel's; the tensor's own are float64 copies
    if part.bias() is not None:
        yield part.bias()
