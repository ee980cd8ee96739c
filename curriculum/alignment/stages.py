"""Trained adapters kept in files, so that a killed study goes on with the next step instead of the first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from curriculum.disk import write_atomically
from curriculum.storage import digest_of


class Stages:
    """Like ``curriculum.cells.Cells``, for steps that change weights: a safetensors file a step, its curves in the header."""

    def __init__(self, folder: Path, progress: Callable[[str], None] = lambda line: None) -> None:
        self.folder, self.progress = folder, progress

    def get(
        self, name: str, settings: Any, parameters: Mapping[str, torch.nn.Parameter], train: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Put what ``train`` made of ``parameters`` into them, from the file of an earlier run or by training now.

        Returns what ``train`` returned (JSON). A file that does not read, or holds other parameters, counts as absent.
        """
        path = self.folder / f"{digest_of([name, settings])[:20]}.safetensors"
        kept = _read(path, parameters)
        if kept is not None:
            self.progress(f"{name}: kept from before")
            return kept
        facts = json.dumps(train())
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in parameters.items()}
        write_atomically(path, save(tensors, metadata={"facts": facts}))
        return json.loads(facts)


@torch.no_grad()
def _read(path: Path, parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None
    if {name: t.shape for name, t in tensors.items()} != {name: p.shape for name, p in parameters.items()}:
        return None
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
    return facts
