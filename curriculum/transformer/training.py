"""Training of the mini-Transformer: AdamW, warm-up and cosine, clipping, accumulation, checkpoints and exact resume."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curriculum.artifacts import DirectoryArtifact, ModelArtifact
from curriculum.checkpoint import load_checkpoint, save_checkpoint
from curriculum.storage import digest_of
from curriculum.tokenization.packing import TokenBlocks
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.experts import balance_loss, z_loss
from curriculum.transformer.model import Transformer, save_model
from curriculum.transformer.objectives import Batch, NextToken, Objective, block_nats, mean_nats
from curriculum.transformer.settings import TrainingSettings, TransformerSettings


@dataclass(frozen=True)
class TrainedRun:
    """A trained model, and its run.

    A step each: ``losses``, the objective's alone in nats an asked token, and ``grad_norms`` before clipping. ``validation``: (steps
    done, mean nats an asked token of the validation blocks). ``seconds``: of the training steps.
    """

    model: Transformer
    losses: list[float]
    grad_norms: list[float]
    validation: list[tuple[int, float]]
    seconds: float


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up to the peak, then a half cosine down to the minimum (Loshchilov and Hutter, 2017)."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    span = settings.learning_rate - settings.minimum_learning_rate
    return settings.minimum_learning_rate + 0.5 * span * (1 + math.cos(math.pi * min(1.0, done)))


def batch_rows(step: int, blocks: int, size: int, seed: int) -> np.ndarray:
    """Which blocks step ``step`` reads: a fresh permutation each epoch, a function of seed and step alone, so resuming is exact."""
    rows = np.arange(step * size, (step + 1) * size)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(blocks) for epoch in np.unique(rows // blocks)}
    return np.array([orders[row // blocks][row % blocks] for row in rows])


def make_optimizer(model: Transformer, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: decaying a norm's scale shrinks the signal, not the model."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)


def router_loss(routes: list[Tensor], kept: int, settings: TrainingSettings) -> Tensor | float:
    """What the routers add to the loss: the weighted balance and z losses, a mean over their layers."""
    each = [settings.balance_weight * balance_loss(logits, kept) + settings.z_weight * z_loss(logits) for logits in routes]
    return torch.stack(each).mean() if each else 0.0


def train_step(
    model: Transformer, optimizer: torch.optim.Optimizer, micro_batches: list[Batch], step: int, settings: TrainingSettings
) -> tuple[float, float]:
    """One optimizer step over the mean loss of ``micro_batches``; returns that loss without the routers' share, and the gradient's norm."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for batch in micro_batches:
        routes: list[Tensor] = []
        nats = mean_nats(model, batch, routes)
        ((nats + router_loss(routes, model.config.experts_per_token, settings)) / len(micro_batches)).backward()
        total += float(nats.detach()) / len(micro_batches)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    return total, float(norm)


def model_config(settings: TransformerSettings, vocab_size: int) -> ModelConfig:
    """The model's shape under the settings."""
    return ModelConfig(
        vocab_size, settings.layers, settings.width, settings.heads, settings.kv_heads, settings.hidden, settings.rope_theta
    )


def train_mini_transformer(
    corpus: DirectoryArtifact,
    settings: TransformerSettings,
    *,
    seed: int,
    out: Path,
    checkpoints: Path,
    progress: Callable[[str], None],
    device: str = "cpu",
) -> ModelArtifact:
    """Train on the corpus's training blocks; a run that was killed goes on from ``checkpoints`` to the same weights."""
    data = TokenBlocks(corpus.path, "train")
    run = train_config(
        model_config(settings, data.vocab_size), data.blocks, settings, seed=seed, checkpoints=checkpoints, progress=progress, device=device
    )
    model, seconds = run.model.cpu(), run.seconds
    save_model(model, out)
    shutil.copy(data.tokenizer_path, out / "tokenizer.json")
    (out / "history.json").write_text(json.dumps({"loss": run.losses}))
    tokens = settings.steps * settings.batch_size * settings.accumulate * data.block_size
    facts = {
        "parameters": model.config.parameters(), "steps": settings.steps, "tokens": tokens, "final_loss": float(np.mean(run.losses[-20:])),
        "seconds": seconds, "tokens_per_second": tokens / seconds if seconds else 0.0, "block_size": data.block_size,
        "train_flops_per_token": model.config.train_flops_per_token(data.block_size),
    }
    return ModelArtifact(out, facts)


def train_config(
    config: ModelConfig,
    blocks: Tensor,
    settings: TrainingSettings,
    *,
    seed: int,
    checkpoints: Path,
    progress: Callable[[str], None],
    objective: Objective | None = None,
    validation: Tensor | None = None,
    device: str = "cpu",
) -> TrainedRun:
    """A model of any configuration, initialised from ``seed`` and trained by :func:`fit`."""
    torch.manual_seed(seed)
    model = Transformer(config).to(device).train()
    return fit(model, blocks, settings, seed=seed, checkpoints=checkpoints, progress=progress, objective=objective, validation=validation)


def fit(
    model: Transformer,
    blocks: Tensor,
    settings: TrainingSettings,
    *,
    seed: int,
    checkpoints: Path,
    progress: Callable[[str], None],
    objective: Objective | None = None,
    validation: Tensor | None = None,
) -> TrainedRun:
    """The loop, the same for every objective (default: next token). What a checkpoint kept is the start; its seconds are scaled in.

    ``blocks`` and ``validation``: int64 [n, block size + 1]. Where the model has experts, the routers' losses are added.
    """
    optimizer, objective = make_optimizer(model, settings), objective or NextToken()
    run = _digest(model, objective, [blocks] if validation is None else [blocks, validation], settings, seed)
    start, history = load_checkpoint(checkpoints, model, optimizer, run=run) or (0, [])
    if start:
        progress(f"resumed at step {start}/{settings.steps}")
    device, size, spent = next(model.parameters()).device, settings.batch_size * settings.accumulate, 0.0
    for step in range(start, settings.steps):
        begun = time.perf_counter()
        rows = torch.from_numpy(batch_rows(step, len(blocks), size, seed))
        micro = objective.batch(blocks[rows], seed, step).to(device).split(settings.batch_size)
        loss, norm = train_step(model, optimizer, micro, step, settings)
        spent, done = spent + time.perf_counter() - begun, step + 1
        due = done == settings.steps or (settings.validate_every and done % settings.validate_every == 0)
        known = float(block_nats(model, validation, objective.held_out()).mean()) if due and validation is not None else None
        history.append([loss, norm, known])
        if done % settings.checkpoint_every == 0 and done < settings.steps:
            save_checkpoint(checkpoints, model, optimizer, step=done, losses=history, run=run)
        if done % 25 == 0 or done == settings.steps:
            rate = (done - start) * size * (blocks.shape[1] - 1) / spent / 1000
            progress(f"step {done}/{settings.steps} loss {np.mean([row[0] for row in history[-25:]]):.3f} {rate:.1f}k tok/s")
    losses, norms, checked = zip(*history, strict=True)
    validated = [(done, nats) for done, nats in enumerate(checked, 1) if nats is not None]
    return TrainedRun(model, list(losses), list(norms), validated, spent * settings.steps / max(1, settings.steps - start))


def _digest(model: Transformer, objective: Objective, blocks: list[Tensor], settings: TrainingSettings, seed: int) -> str:
    """What a checkpoint must have been made from to be resumed."""
    asked = [type(objective).__name__, asdict(objective)]
    texts = [[list(part.shape), int(part.sum())] for part in blocks]
    return digest_of([settings.model_dump(mode="json"), seed, asdict(model.config), asked, texts])
