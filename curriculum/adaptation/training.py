"""QLoRA training (Dettmers et al., 2023): adapters over a 4-bit base, on packed blocks of domain text, with exact resume."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from curriculum.adaptation.model import add_adapter, block_loss, load_base, load_tokenizer, save_adapter, trainable
from curriculum.adaptation.settings import AdapterSettings
from curriculum.adaptation.text import token_blocks
from curriculum.artifacts import ModelArtifact
from curriculum.checkpoint import load_checkpoint, save_checkpoint
from curriculum.results import Identity


@dataclass(frozen=True)
class TrainingRecord:
    """What one call of :func:`train` did. ``losses`` in nats a token, one a step, the resumed ones included."""

    losses: list[float]
    tokens_per_second: float


def train_adapter(
    texts: Sequence[str],
    settings: AdapterSettings,
    *,
    folder: Path,
    base: Identity,
    out: Path,
    checkpoints: Path,
    device: str,
    precision: str,
    seed: int,
    progress: Callable[[str], None],
) -> ModelArtifact:
    """Adapt the model in ``folder`` to ``texts`` and write the adapter under ``out``.

    Raises:
        DataError: the texts do not fill one block.
    """
    needed = settings.steps * settings.accumulation * settings.batch_size
    blocks = token_blocks(load_tokenizer(folder), texts, settings.block_size, limit=needed)
    model = add_adapter(load_base(folder, settings, device=device, precision=precision), settings, seed=seed)
    parameters = sum(p.numel() for p in trainable(model).values())
    progress(f"{parameters / 1e6:.2f}M trainable parameters, {len(blocks)} blocks of {settings.block_size} tokens")
    record = train(model, blocks, settings, checkpoints=checkpoints, device=device, precision=precision, seed=seed, progress=progress)
    save_adapter(model, out, base)
    facts = {
        "base": base.source, "base_digest": base.digest, "trainable_parameters": parameters, "blocks": len(blocks),
        "train_losses": [round(loss, 4) for loss in record.losses], "tokens_per_second": round(record.tokens_per_second, 1),
    }
    return ModelArtifact(out, facts)


def train(
    model: PeftModel,
    blocks: torch.Tensor,
    settings: AdapterSettings,
    *,
    checkpoints: Path,
    device: str,
    precision: str = "float32",
    seed: int,
    progress: Callable[[str], None],
) -> TrainingRecord:
    """Train the adapters of ``model`` in place on ``blocks`` int64 [n, block + 1].

    The order of the blocks is fixed by ``seed`` before the first step, so a killed run that is started again with the same
    arguments resumes from ``checkpoints`` and ends with the weights it would have had.
    """
    parameters = trainable(model)
    optimizer = build_optimizer(list(parameters.values()), settings, device)
    # a "." cannot be in a ParameterDict's key; only the adapters are saved, the frozen base is not
    adapters = torch.nn.ParameterDict({name.replace(".", "/"): p for name, p in parameters.items()})
    plan, run = _plan(len(blocks), settings, seed), _run_identity(blocks, settings, seed, parameters)
    torch.manual_seed(seed)
    restored = load_checkpoint(checkpoints, adapters, SavableOptimizer(optimizer), run=run)
    start, losses = restored or (0, [])
    if restored:
        progress(f"resumed at step {start}/{settings.steps}")
    begun, tokens = time.perf_counter(), 0
    for step in range(start, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, settings)
        chosen = blocks[plan[step]].to(device)
        losses.append(train_step(model, optimizer, chosen, settings, device=device, precision=precision))
        tokens += chosen[:, 1:].numel()
        if (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
            save_checkpoint(checkpoints, adapters, SavableOptimizer(optimizer), step=step + 1, losses=losses, run=run)
        if (step + 1) % 5 == 0 or step + 1 == settings.steps:
            rate = tokens / (time.perf_counter() - begun)
            progress(f"step {step + 1}/{settings.steps} loss {np.mean(losses[-5:]):.3f} {rate:.0f} tok/s")
    return TrainingRecord(losses, tokens / (time.perf_counter() - begun) if tokens else math.nan)


def train_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    blocks: torch.Tensor,
    settings: AdapterSettings,
    *,
    device: str,
    precision: str = "float32",
) -> float:
    """One optimiser step over ``blocks`` int64 [batch * accumulation, block + 1]; returns the mean loss.

    Gradients are zeroed in place rather than freed, so that their memory is the same all through a run (see the ledger).
    """
    total = 0.0
    parts = blocks.split(settings.batch_size)
    optimizer.zero_grad(set_to_none=False)
    for part in parts:
        with autocast(device, precision):
            loss = block_loss(model, part, chunk=settings.logit_chunk) * (len(part) / len(blocks))
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], settings.clip_norm)
    optimizer.step()
    return total


def autocast(device: str, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision on a GPU. On most CPUs bfloat16 is several times slower than float32, so there is none there."""
    if device == "cpu" or precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.split(":")[0], getattr(torch, precision))


def schedule(step: int, settings: AdapterSettings) -> float:
    """Multiplier of the learning rate: linear warm-up, then a cosine to a tenth."""
    if step < settings.warmup_steps:
        return (step + 1) / (settings.warmup_steps + 1)
    share = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * share))


def uses_pages(settings: AdapterSettings, device: str) -> bool:
    """Whether the optimizer is the paged one: on CUDA only, unless the settings ask for the plain one."""
    return device.startswith("cuda") and settings.optimizer != "adamw"


def build_optimizer(parameters: list[torch.nn.Parameter], settings: AdapterSettings, device: str) -> torch.optim.Optimizer:
    """AdamW; on CUDA its moments live in pages that move to the host when the device runs short."""
    if uses_pages(settings, device):
        from bitsandbytes.optim import PagedAdamW

        return PagedAdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False)


class SavableOptimizer:
    """An optimizer whose state is tensors only, whichever library made it: bitsandbytes counts steps in a Python int."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`torch.optim.Optimizer.state_dict`, every value of the state a tensor."""
        plain = torch.optim.Optimizer.state_dict(self.optimizer)
        state = {i: {k: v if torch.is_tensor(v) else torch.tensor(v) for k, v in s.items()} for i, s in plain["state"].items()}
        return {**plain, "state": state}

    def load_state_dict(self, value: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        if not isinstance(self.optimizer, torch.optim.AdamW):
            value = {**value, "state": {i: {**s, "step": int(s["step"])} for i, s in value["state"].items()}}
        self.optimizer.load_state_dict(value)


def _plan(blocks: int, settings: AdapterSettings, seed: int) -> list[list[int]]:
    rng, size = np.random.default_rng(seed), settings.batch_size * settings.accumulation
    order: list[int] = []
    while len(order) < settings.steps * size:
        order += rng.permutation(blocks).tolist()
    return [order[step * size : (step + 1) * size] for step in range(settings.steps)]


def _run_identity(blocks: torch.Tensor, settings: AdapterSettings, seed: int, parameters: dict[str, torch.nn.Parameter]) -> str:
    shapes = [(name, tuple(p.shape)) for name, p in parameters.items()]
    digest = hashlib.sha256(repr((settings.model_dump_json(), seed, shapes)).encode())
    digest.update(blocks.numpy().tobytes())
    return digest.hexdigest()
