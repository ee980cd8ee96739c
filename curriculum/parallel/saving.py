"""Checkpoints that fit any number of ranks: the whole state by parameter name, gathered on rank 0, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from curriculum.checkpoint import read_state
from curriculum.disk import write_atomically

FILE = "ranks.safetensors"
_WHOLE = StateDictOptions(full_state_dict=True)
_GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True)  # on rank 0 alone; the others get empty dictionaries


def save_state(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, step: int, losses: list[float], run: str, rank: int
) -> None:
    """Write weights, moments, ``step`` and ``losses``; every rank must call it. A kill leaves the last good file."""
    tensors = {f"model.{name}": value for name, value in get_model_state_dict(model, options=_GATHERED).items()}
    for name, state in get_optimizer_state_dict(model, optimizer, options=_GATHERED).get("state", {}).items():
        tensors |= {f"optimizer.{field}.{name}": value for field, value in state.items()}
    if rank == 0:
        note = json.dumps({"step": step, "losses": losses, "run": run})
        whole = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
        write_atomically(folder / FILE, save(whole, metadata={"note": note}))


def load_state(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, run: str) -> tuple[int, list[float]] | None:
    """Restore what :func:`save_state` wrote under any number of ranks; returns ``(step, losses)``, or None when nothing is of this run."""
    kept = read_state(folder / FILE, run=run)
    if kept is None:
        return None
    note, tensors = kept
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    set_model_state_dict(model, weights, options=_WHOLE)
    groups = get_optimizer_state_dict(model, optimizer, options=_WHOLE)["param_groups"]
    set_optimizer_state_dict(model, optimizer, {"state": _moments(tensors), "param_groups": groups}, options=_WHOLE)
    return note["step"], note["losses"]


def _moments(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    state: dict[str, dict[str, Any]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            field, _, parameter = rest.partition(".")
            state.setdefault(parameter, {})[field] = value
    return state
