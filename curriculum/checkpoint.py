"""Checkpoints of a training loop: one safetensors file, replaced atomically, from which a run goes on bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from curriculum.disk import write_atomically

_FILE = "checkpoint.safetensors"


def save_checkpoint(
    directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, step: int, losses: list[Any], run: str
) -> None:
    """Write weights, optimiser moments, random state, ``step`` and ``losses`` to one file; a kill leaves the last good one.

    ``losses``: a step each, a number or a list of what is kept of it (JSON).
    ``run`` names the training run (a hash of its data and settings): only the same run may resume from the file.
    """
    tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    tensors = {name: value.clone() for name, value in tensors.items()}  # safetensors refuses storage shared between names
    note = json.dumps({"step": step, "losses": losses, "run": run})
    write_atomically(directory / _FILE, save(tensors, metadata={"note": note}))


def read_state(path: Path, *, run: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """The note and the tensors of a checkpoint file, or None where there is none, or none of ``run``."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads(file.metadata()["note"])
            if note["run"] != run:
                return None
            return note, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None  # not a checkpoint of ours: start from the beginning


def load_checkpoint(
    directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, run: str
) -> tuple[int, list[Any]] | None:
    """Restore what :func:`save_checkpoint` wrote; returns ``(step, losses)``, or None when there is nothing of this run."""
    kept = read_state(directory / _FILE, run=run)
    if kept is None:
        return None
    note, tensors = kept
    model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _optimizer_state(tensors)})
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return note["step"], note["losses"]


def _optimizer_state(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, field = rest.partition(".")
            state.setdefault(int(index), {})[field] = value
    return state
