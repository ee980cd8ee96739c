"""A key hidden in noise and asked for at the end: whether far positions can be read at all, which perplexity does not tell."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curriculum.long_context.scaling import METHODS, rescaled
from curriculum.long_context.settings import LongContextSettings, PasskeySettings
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer
from curriculum.transformer.objectives import Batch
from curriculum.transformer.training import train_config


@dataclass(frozen=True)
class Recall:
    """The last ``digits`` tokens of a block from those before them: noise cannot be foretold, so it is not asked for."""

    digits: int

    def batch(self, blocks_BL: Tensor, seed: int = 0, step: int = 0) -> Batch:
        asked = torch.zeros_like(blocks_BL[:, 1:], dtype=torch.bool)
        asked[:, -self.digits :] = True
        return Batch(blocks_BL[:, :-1], blocks_BL[:, 1:], asked)

    def held_out(self) -> Recall:
        return self


def vocabulary(settings: PasskeySettings) -> int:
    """Ids: the noise, then an alphabet for each place of a key, then the question."""
    return settings.fillers + settings.digits * settings.symbols + 1


def sequences(settings: PasskeySettings, count: int, length: int, rng: np.random.Generator, depth: float | None = None) -> Tensor:
    """int64 [count, length + 1]: noise with a key at ``depth`` (None: anywhere), and at the end the question and the key again.

    Each place of a key has symbols of its own, so one layer that looks for the next place's symbols is enough to find it.
    """
    digits, question = settings.digits, vocabulary(settings) - 1
    made = rng.integers(settings.fillers, size=(count, length + 1))
    keys = settings.fillers + settings.symbols * np.arange(digits) + rng.integers(settings.symbols, size=(count, digits))
    last = length - 2 * digits  # the last place where a key can begin
    begins = rng.integers(last + 1, size=count) if depth is None else np.full(count, round(depth * last))
    np.put_along_axis(made, begins[:, None] + np.arange(digits), keys, axis=1)
    made[:, -(digits + 1)], made[:, -digits:] = question, keys
    return torch.from_numpy(made)


@torch.no_grad()
def recalled(model: Transformer, blocks_BL: Tensor, digits: int) -> list[bool]:
    """Whether the whole key is the likeliest continuation, symbol by symbol: [blocks]."""
    said = torch.cat([model.logits(model.hidden(part[:, :-1])[:, -digits:]).argmax(-1) for part in blocks_BL.split(32)])
    return (said == blocks_BL[:, -digits:]).all(1).tolist()


def passkey_cell(settings: LongContextSettings, seed: int, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train under one seed at the training length, and ask at every length and depth: by method and times, [depths, cases] of right or not."""
    own, length = settings.passkey, settings.length
    config = ModelConfig(vocabulary(own), own.layers, own.width, own.heads, own.heads, own.hidden, settings.rope_theta)
    train = sequences(own, own.steps * own.batch_size * own.accumulate, length, np.random.default_rng([2, seed]))

    def said(line: str) -> None:
        progress(f"keys, seed {seed}: {line}")

    run = train_config(config, train, own, seed=seed, checkpoints=folder, progress=said, objective=Recall(own.digits))
    shutil.rmtree(folder, ignore_errors=True)
    model, found = run.model.eval(), {}
    for times in range(1, settings.stretch + 1):
        rng = np.random.default_rng([3, seed, times])
        asked = [sequences(own, own.cases, times * length, rng, depth) for depth in own.depths]
        for name, method in METHODS.items():
            other = rescaled(model, method.scaling(times, length))
            found[f"{name} {times}"] = [recalled(other, blocks, own.digits) for blocks in asked]
    return {"right": found, "final_nats": float(np.mean(run.losses[-20:]))}
