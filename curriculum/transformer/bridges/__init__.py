"""Bridges from transformers' models to the one Transformer of this project: the same function from the same weights."""

from __future__ import annotations

from pathlib import Path

import torch

from curriculum.errors import UserError
from curriculum.transformer.bridges.bert import BERT
from curriculum.transformer.bridges.gemma import GEMMA
from curriculum.transformer.bridges.gpt2 import GPT2
from curriculum.transformer.bridges.llama import LLAMA
from curriculum.transformer.bridges.llama4 import LLAMA4
from curriculum.transformer.bridges.mistral import MISTRAL, MIXTRAL
from curriculum.transformer.bridges.qwen import QWEN2, QWEN3
from curriculum.transformer.bridges.t5 import T5
from curriculum.transformer.bridges.weights import Family, convert
from curriculum.transformer.model import Transformer

FAMILIES = {
    "bert": BERT, "gpt2": GPT2, "t5": T5, "llama": LLAMA, "llama4_text": LLAMA4, "mistral": MISTRAL, "mixtral": MIXTRAL, "gemma": GEMMA,
    "qwen2": QWEN2, "qwen3": QWEN3,
}  # fmt: skip


def bridge(source: torch.nn.Module | Path | str) -> Transformer:
    """Our model of a transformers model, or of a folder that one was saved to; in float32, in evaluation mode, with weights of its own.

    An encoder without a head (``BertModel``) gets the tied output layer, untrained for it: read its :meth:`Transformer.encode`. Positions
    count from the first token of a row, padding included, as transformers' ``forward`` counts them when it is given no ``position_ids``.

    Raises:
        UserError: a family, class or option that has no bridge, or weights that do not match the configuration.
    """
    theirs = read_reference(Path(source)) if isinstance(source, str | Path) else source
    family = _family(theirs.config.model_type, type(theirs).__name__)
    try:
        return convert(theirs, family)
    except ValueError as error:
        raise UserError(str(error)) from error


def read_reference(folder: Path) -> torch.nn.Module:
    """transformers' own model of a folder, in float32, in evaluation mode; nothing is fetched.

    Raises:
        UserError: the folder is no model's, or one of a family or class that has no bridge.
    """
    import transformers

    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json: give the folder of a saved transformers model")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    name = (config.architectures or ["none"])[0]
    _family(config.model_type, name)
    return getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def _family(model_type: str, name: str) -> Family:
    if model_type not in FAMILIES:
        raise UserError(f"there is no bridge for model_type '{model_type}'; there are {', '.join(FAMILIES)}")
    family = FAMILIES[model_type]
    if name not in family.classes:
        raise UserError(f"there is no bridge for the class {name} of '{model_type}'; there is for {', '.join(family.classes)}")
    return family
