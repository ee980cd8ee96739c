"""What every bridge shares: another library's tensors under our names, each used exactly once, and options we cannot express refused."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from curriculum.transformer.config import ModelConfig, RopeScaling
from curriculum.transformer.model import Transformer

_PREFIX = re.compile(r"^(bert|transformer|model)\.")  # a model with a head wraps the one without
_PLAIN = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
_GATED = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu", "gelu_new": "geglu_tanh", "gelu_pytorch_tanh": "geglu_tanh"}


@dataclass(frozen=True)
class Family:
    """How one family of transformers' models reads as ours.

    ``classes``: the model classes it takes, by name. ``config``: from their configuration, and whether their output matrix is their
    embedding (None: they have no output layer), ours. ``names``: our parameters to theirs, from their configuration; ``{n}`` is the
    layer, ``*`` is ``weight`` or ``bias``, several of theirs are stacked by rows. ``change``: a tensor of theirs, by name, as ours holds
    it. ``dropped``: tensors we have no place for.
    """

    classes: tuple[str, ...]
    config: Callable[[Any, bool | None], ModelConfig]
    names: Callable[[Any], dict[str, str]]
    change: Callable[[str, Tensor, Any], Tensor] = lambda name, value, config: value
    dropped: tuple[str, ...] = ()


def sources(ours: str, names: dict[str, str]) -> list[str]:
    """The names of the tensors that our parameter ``ours`` is made of; none when the family has no such thing."""
    number = re.search(r"\.(\d+)\.", ours)
    key = ours.replace(number.group(0), ".{n}.") if number else ours
    layer = number.group(1) if number else ""
    stem, _, last = key.rpartition(".")
    found = names.get(key) or names.get(f"{stem}.*", "")
    return [name.replace("{n}", layer).replace("*", last) for name in found.split()]


def layers(ours: str, theirs: str, names: dict[str, str]) -> dict[str, str]:
    """``names`` with the prefixes of one stack's blocks put before each side."""
    return {f"{ours}.blocks.{{n}}.{mine}": " ".join(f"{theirs}.{{n}}.{name}" for name in yours.split()) for mine, yours in names.items()}


def convert(theirs: torch.nn.Module, family: Family) -> Transformer:
    """Our model with the shape and weights of ``theirs``, in evaluation mode, in float32.

    Raises:
        ValueError: an option that we cannot express, a tensor of ours with no source, or one of theirs that is unused or used twice.
    """
    output, embedding = theirs.get_output_embeddings(), theirs.get_input_embeddings()
    tied = None if output is None else output.weight is embedding.weight
    ours = Transformer(family.config(theirs.config, tied))
    source = {_PREFIX.sub("", name): value.detach() for name, value in theirs.state_dict().items()}
    names = family.names(theirs.config)
    uses = {name: sources(name, names) for name in ours.state_dict()}
    _account(source, uses, set(family.dropped))
    changed = {name: family.change(name, value, theirs.config) for name, value in source.items()}
    with torch.no_grad():
        for name, value in ours.state_dict().items():  # copied in place: a tensor of another shape is an error here
            made = torch.cat([changed[part] for part in uses[name]])
            if made.shape != value.shape:
                raise ValueError(f"{' + '.join(uses[name])} have the shape {tuple(made.shape)}, and our {name} {tuple(value.shape)}")
            value.copy_(made)
    return ours.eval()


def _account(source: dict[str, Tensor], uses: dict[str, list[str]], dropped: set[str]) -> None:
    """Every tensor of theirs is used once, is dropped by name, or shares its memory with one that is used (tied)."""
    counts = Counter(part for parts in uses.values() for part in parts)
    without = [name for name, parts in uses.items() if not parts]
    absent = [name for name in counts if name not in source]
    used = {source[name].data_ptr() for name in counts if name in source}
    unused = [name for name, value in source.items() if name not in counts and name not in dropped and value.data_ptr() not in used]
    twice = [name for name, count in counts.items() if count > 1]
    wrong = {"parameters of ours without a source": without, "missing": absent, "unused": unused, "used twice": twice}
    found = [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
    if found:
        raise ValueError(f"the weights do not match the configuration; {'; '.join(found)}")


def require(config: Any, **wanted: Any) -> None:
    """Refuse options that our model cannot express: each given one must have the given value, or be absent.

    Raises:
        ValueError: naming the option, its value and what is supported.
    """
    for name, value in wanted.items():
        found = getattr(config, name, value)
        if found != value:
            raise ValueError(f"{config.model_type}: {name}={found!r} is not supported, only {value!r}")


def activation(config: Any, name: str, *, gated: bool) -> Any:
    """Our name of their activation ``name``.

    Raises:
        ValueError: one that our blocks lack.
    """
    known = _GATED if gated else _PLAIN
    if name not in known:
        kind = "gated" if gated else "plain"
        raise ValueError(f"{config.model_type}: the activation {name!r} of a {kind} block is not supported, only {', '.join(known)}")
    return known[name]


def rope(config: Any) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary frequencies.

    Raises:
        ValueError: a kind of scaling that we lack (``dynamic`` follows the length of each input, ours is fixed), or a variant of one.
    """
    given = dict(config.rope_parameters or {})
    kind, theta, factor = given.get("rope_type", "default"), given["rope_theta"], given.get("factor") or 1.0
    if kind not in {"default", "linear", "yarn", "llama3"}:
        raise ValueError(f"{config.model_type}: rope_type={kind!r} is not supported, only default, linear, yarn and llama3")
    usual = {"partial_rotary_factor": 1.0, "truncate": True, "mscale": None, "mscale_all_dim": None}
    usual["attention_factor"] = 0.1 * math.log(factor) + 1.0 if kind == "yarn" else None
    for name, value in usual.items():
        if given.get(name) not in {None, value}:
            raise ValueError(f"{config.model_type}: {name}={given[name]!r} of rope_type={kind!r} is not supported, only {value!r}")
    if kind in {"default", "linear"}:
        return theta, RopeScaling("linear", factor) if kind == "linear" else None
    bands = {
        "low_frequency": "low_freq_factor", "high_frequency": "high_freq_factor", "beta_fast": "beta_fast", "beta_slow": "beta_slow",
    }  # fmt: skip
    own = {mine: given[name] for mine, name in bands.items() if given.get(name) is not None}
    return theta, RopeScaling(kind, factor, given["original_max_position_embeddings"], **own)
