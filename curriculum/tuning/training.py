"""One run of one method on one task: the same batches in the same order for every method under a seed, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoTokenizer

from curriculum.adaptation.model import trainable
from curriculum.adaptation.training import autocast
from curriculum.tuning.methods import attach, frozen_digests, load_frozen, merge_difference, pooled, stored_numbers, token_logits, weights_of
from curriculum.tuning.settings import Method, TuningSettings
from curriculum.tuning.tasks import Blocks

_EVALUATION_BATCH = {"generation": 8, "classification": 32}


@dataclass(frozen=True)
class Setting:
    """What the runs of a row share: the models' folders, the machine, and the budget."""

    method: Method
    settings: TuningSettings
    device: str
    precision: str


def tune_generator(setting: Setting, folder: Path, blocks: Blocks, *, rate: float, seed: int) -> dict[str, Any]:
    """Train on ``blocks.train`` and score every test block: JSON with ``dev_loss`` and ``scores`` (minus nats a token), and costs.

    ``step0_difference`` is the largest change of a logit by the method before its first step.
    """
    s, device = setting.settings, setting.device
    model = load_frozen(folder, "generation", setting.method, device=device, precision=setting.precision)
    size, probe = weights_of(model), blocks.dev[:2, :-1].to(device)
    with torch.no_grad():
        before = token_logits(model.eval(), probe)
        tuned = attach(model, setting.method, "generation", s, seed=seed)
        shift = (token_logits(tuned.eval(), probe) - before).abs().max()
    plan = batch_plan(len(blocks.train), s.batch_size, s.steps, seed)

    def loss_at(step: int) -> torch.Tensor:
        return block_loss(tuned, blocks.train[plan[step]].to(device)).mean()

    kept = frozen_digests(tuned)
    losses, seconds = fit(tuned, [{"params": list(trainable(tuned).values()), "peak": rate}], loss_at, setting, s.steps)
    return {
        "train_losses": losses, "dev_loss": float(_block_losses(tuned, blocks.dev, device).mean()),
        "scores": [-loss for loss in _block_losses(tuned, blocks.test, device).tolist()],
        "seconds": seconds, "tokens": len(losses) * s.batch_size * s.block_size, "step0_difference": float(shift), "base": size,
        **_weights(tuned, kept), **({"merge_difference": merge_difference(tuned, probe)} if setting.method == "lora" else {}),
    }  # fmt: skip


def tune_classifier(setting: Setting, folder: Path, texts: pd.DataFrame, *, rate: float, seed: int) -> dict[str, Any]:
    """Train encoder and head on the training side and label the test side: JSON with ``dev_loss`` (nats), ``predicted``, and costs.

    The head starts from the same weights, drawn from ``seed``, whatever the method.
    """
    s, device = setting.settings, setting.device
    labels = sorted(texts["label"].unique())
    ids, masks, classes = _encoded(texts, folder, labels, s.classifier_tokens, device)
    sides = {side: np.flatnonzero(texts["split"] == side) for side in ("train", "dev", "test")}
    model = load_frozen(folder, "classification", setting.method, device=device, precision=setting.precision)
    size = weights_of(model)
    tuned = attach(model, setting.method, "classification", s, seed=seed)
    head = new_head(model.config.hidden_size, len(labels), seed).to(device)
    plan = batch_plan(len(sides["train"]), s.classifier_batch_size, s.classifier_steps, seed)

    def logits_of(rows: np.ndarray) -> torch.Tensor:
        width = int(masks[rows].sum(1).max())
        return head(pooled(tuned, ids[rows, :width], masks[rows, :width]).float())

    def loss_at(step: int) -> torch.Tensor:
        rows = sides["train"][plan[step]]
        return functional.cross_entropy(logits_of(rows), classes[rows])

    groups = [{"params": list(head.parameters()), "peak": s.head_learning_rate}, {"params": list(trainable(tuned).values()), "peak": rate}]
    kept = frozen_digests(tuned)
    losses, seconds = fit(nn.ModuleList([tuned, head]), [g for g in groups if g["params"]], loss_at, setting, s.classifier_steps)
    scored = {side: _side_logits(tuned, head, logits_of, sides[side]) for side in ("dev", "test")}
    return {
        "train_losses": losses, "dev_loss": float(functional.cross_entropy(scored["dev"], classes[sides["dev"]])),
        "predicted": [labels[i] for i in scored["test"].argmax(1).tolist()], "seconds": seconds,
        "head": sum(p.numel() for p in head.parameters()), "base": size, **_weights(tuned, kept),
    }  # fmt: skip


def fit(
    model: nn.Module, groups: list[dict[str, Any]], loss_at: Callable[[int], torch.Tensor], setting: Setting, steps: int
) -> tuple[list[float], float]:
    """AdamW over ``groups`` (each with its ``peak`` rate): the losses [steps] and the seconds. Nothing is done where nothing is trained.

    A run whose loss is no longer finite stops there: its rate was too high, which the dev split then says.
    """
    if not groups or not any(group["params"] for group in groups):
        return [], 0.0
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0)
    parameters = [p for group in groups for p in group["params"]]
    model.train()
    losses: list[float] = []
    begun = time.perf_counter()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(step, steps, setting.settings.warmup_share)
        optimizer.zero_grad(set_to_none=True)
        with autocast(setting.device, setting.precision):
            loss = loss_at(step)
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            break
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, setting.settings.clip_norm)
        optimizer.step()
    return losses, time.perf_counter() - begun


def schedule(step: int, steps: int, warmup_share: float) -> float:
    """Multiplier of the peak rate: a linear rise over the warm-up, then a linear fall that ends above zero."""
    warmup = round(steps * warmup_share)
    return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / (steps - warmup)


def batch_plan(count: int, size: int, steps: int, seed: int) -> list[list[int]]:
    """Indices of the examples of each of ``steps`` batches: epoch after epoch, each shuffled."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < steps * size:
        order += rng.permutation(count).tolist()
    return [order[step * size : (step + 1) * size] for step in range(steps)]


def new_head(width: int, labels: int, seed: int) -> nn.Linear:
    """A linear classifier over the pooled vector, drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(width, labels)


def block_loss(model: nn.Module, blocks: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy of each of ``blocks`` int64 [n, block + 1], in nats: [n]."""
    logits_BTV = token_logits(model, blocks[:, :-1]).float()
    return functional.cross_entropy(logits_BTV.transpose(1, 2), blocks[:, 1:], reduction="none").mean(1)


@torch.no_grad()
def _block_losses(model: nn.Module, blocks: torch.Tensor, device: str) -> torch.Tensor:
    model.eval()
    return torch.cat([block_loss(model, part.to(device)).double().cpu() for part in blocks.split(_EVALUATION_BATCH["generation"])])


@torch.no_grad()
def _side_logits(tuned: nn.Module, head: nn.Module, logits_of: Callable[[np.ndarray], torch.Tensor], rows: np.ndarray) -> torch.Tensor:
    tuned.eval(), head.eval()
    size = _EVALUATION_BATCH["classification"]
    return torch.cat([logits_of(rows[start : start + size]) for start in range(0, len(rows), size)])


def _encoded(
    texts: pd.DataFrame, folder: Path, labels: list[str], tokens: int, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(texts["text"]), truncation=True, max_length=tokens, padding=True, return_tensors="pt")
    classes = torch.tensor([labels.index(label) for label in texts["label"]])
    return batch["input_ids"].to(device), batch["attention_mask"].to(device), classes.to(device)


def _weights(tuned: nn.Module, before: dict[str, str]) -> dict[str, Any]:
    after = frozen_digests(tuned)
    trained = sum(p.numel() for p in trainable(tuned).values())
    return {
        "trainable": trained, "stored": stored_numbers(tuned), "frozen": len(before),
        "frozen_changed": len(before.keys() ^ after.keys()) + sum(after.get(name) != digest for name, digest in before.items()),
    }  # fmt: skip
