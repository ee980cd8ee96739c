"""The training loop of a cross-encoder: length-bucketed batches, AdamW with warm-up, binary or listwise loss, exact resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from curriculum.checkpoint import load_checkpoint, save_checkpoint
from curriculum.crossencoder.model import CrossEncoder, Pair
from curriculum.crossencoder.settings import CrossEncoderSettings
from curriculum.errors import DataError

Loss = Literal["binary", "listwise"]


@dataclass(frozen=True)
class Group:
    """Pairs that are judged together, and their labels (1.0 positive, 0.0 negative).

    The binary loss looks at each pair alone. The listwise loss is a softmax over the group, whose first pair is the positive.
    """

    pairs: tuple[Pair, ...]
    labels: tuple[float, ...]

    @classmethod
    def single(cls, first: str, second: str, label: bool) -> Group:
        """One labelled pair."""
        return cls(((first, second),), (float(label),))


def train(
    encoder: CrossEncoder,
    groups: Sequence[Group],
    settings: CrossEncoderSettings,
    *,
    loss: Loss,
    seed: int,
    checkpoints: Path,
    progress: Callable[[str], None],
    precision: str = "float32",
) -> list[float]:
    """Train ``encoder`` in place for ``settings.steps`` steps; returns the loss of each step.

    The order of batches is fixed by ``seed`` before the first step, so a run that is killed and started again with the same
    arguments resumes from ``checkpoints`` and ends with the weights it would have had. ``precision`` other than float32 is
    autocast, on a GPU only: bfloat16 is several times slower than float32 on most CPUs.

    Raises:
        DataError: no groups, or listwise groups of unequal size or whose first pair is not the only positive.
    """
    _check(groups, loss)
    lengths, encoded = _encode(encoder, groups)
    plan = batches(lengths, settings.batch_size, settings.steps, seed)
    for part in encoder.model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = settings.dropout
    optimizer = _optimizer(encoder.model, settings)
    run = _run_identity(groups, settings, loss, seed)
    torch.manual_seed(seed)
    restored = load_checkpoint(checkpoints, encoder.model, optimizer, run=run)
    start, losses = restored or (0, [])
    if restored:
        progress(f"resumed at step {start}/{settings.steps}")
    begun, seen = time.perf_counter(), 0
    for step in range(start, settings.steps):
        chosen = [encoded[i] for i in plan[step]]
        labels = torch.tensor([groups[i].labels for i in plan[step]], device=encoder.device)
        losses.append(_step(encoder, optimizer, chosen, labels, loss, step, settings, precision))
        seen += labels.numel()
        if (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
            save_checkpoint(checkpoints, encoder.model, optimizer, step=step + 1, losses=losses, run=run)
        if (step + 1) % 20 == 0 or step + 1 == settings.steps:
            rate = seen / (time.perf_counter() - begun)
            progress(f"step {step + 1}/{settings.steps} loss {np.mean(losses[-20:]):.3f} {rate:.1f} pairs/s")
    encoder.model.eval()
    return losses


def _check(groups: Sequence[Group], loss: Loss) -> None:
    if not groups:
        raise DataError("a cross-encoder needs at least one training group; there is none (is the training split empty?)")
    if len({len(g.pairs) for g in groups}) > 1:
        raise DataError("all training groups must hold the same number of pairs")
    if loss == "listwise" and any(g.labels[0] != 1.0 or any(g.labels[1:]) or len(g.labels) < 2 for g in groups):
        raise DataError("a listwise group is one positive pair followed by at least one negative")


def _encode(encoder: CrossEncoder, groups: Sequence[Group]) -> tuple[list[int], list[list[dict[str, list[int]]]]]:
    flat = encoder.encode([pair for group in groups for pair in group.pairs])
    size = len(groups[0].pairs)
    encoded = [flat[i : i + size] for i in range(0, len(flat), size)]
    return [max(len(e["input_ids"]) for e in group) for group in encoded], encoded


def batches(lengths: Sequence[int], batch_size: int, steps: int, seed: int, window: int = 16) -> list[list[int]]:
    """Indices of the groups of each of ``steps`` batches.

    Epoch after epoch: shuffle, cut into windows of ``window`` batches, sort each window by length and cut it into batches,
    shuffle the batches. Batches are then of like length (little padding), yet no two epochs are alike.
    """
    rng = np.random.default_rng(seed)
    plan: list[list[int]] = []
    while len(plan) < steps:
        order = rng.permutation(len(lengths))
        epoch = []
        for start in range(0, len(order), window * batch_size):
            bucket = sorted(order[start : start + window * batch_size].tolist(), key=lambda i: lengths[i])
            epoch += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
        plan += [epoch[i] for i in rng.permutation(len(epoch))]
    return plan[:steps]


def _optimizer(model: torch.nn.Module, settings: CrossEncoderSettings) -> torch.optim.AdamW:
    base = getattr(model, model.base_model_prefix)
    if settings.frozen_layers:
        for part in [base.embeddings, *base.encoder.layer[: settings.frozen_layers]]:
            part.requires_grad_(False)
    in_base = {id(p) for p in base.parameters()}
    body = [p for p in model.parameters() if id(p) in in_base and p.requires_grad]
    head = [p for p in model.parameters() if id(p) not in in_base]
    return torch.optim.AdamW(
        [{"params": body, "peak": settings.learning_rate}, {"params": head, "peak": settings.head_learning_rate}],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Multiplier of the peak learning rate: linear rise over the warm-up, then linear fall towards 0."""
    warmup = max(1, round(steps * warmup_share))
    return (step + 1) / warmup if step < warmup else max(0.0, (steps - step) / max(1, steps - warmup))


def _step(
    encoder: CrossEncoder,
    optimizer: torch.optim.AdamW,
    chosen: list[list[dict[str, list[int]]]],
    labels: torch.Tensor,
    loss: Loss,
    step: int,
    settings: CrossEncoderSettings,
    precision: str,
) -> float:
    encoder.model.train()
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * schedule(step, settings.steps, settings.warmup_share)
    mixed = encoder.device.startswith("cuda") and precision != "float32"
    with torch.autocast("cuda", getattr(torch, precision)) if mixed else contextlib.nullcontext():
        logits = encoder.logits([pair for group in chosen for pair in group]).view(labels.shape)
    if loss == "listwise":
        value = F.cross_entropy(logits, torch.zeros(len(labels), dtype=torch.long, device=labels.device))
    else:
        value = F.binary_cross_entropy_with_logits(logits, labels)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), settings.clip_norm)
    optimizer.step()
    return float(value.detach())


def _run_identity(groups: Sequence[Group], settings: CrossEncoderSettings, loss: str, seed: int) -> str:
    described = CrossEncoderSettings(**{name: getattr(settings, name) for name in CrossEncoderSettings.model_fields})
    digest = hashlib.sha256(json.dumps([described.model_dump(), loss, seed]).encode())
    for group in groups:
        digest.update(json.dumps([group.pairs, group.labels]).encode())
    return digest.hexdigest()
