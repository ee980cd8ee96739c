"""Training of the mini-Transformer: AdamW, warm-up and cosine, clipping, accumulation, checkpoints and exact resume."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curriculum.artifacts import DirectoryArtifact, ModelArtifact
from curriculum.checkpoint import load_checkpoint, save_checkpoint
from curriculum.storage import digest_of
from curriculum.tokenization.packing import TokenBlocks
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer, save_model
from curriculum.transformer.settings import TransformerSettings


def learning_rate(step: int, settings: TransformerSettings) -> float:
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


def make_optimizer(model: Transformer, settings: TransformerSettings) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: decaying a norm's scale shrinks the signal, not the model."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)


def next_token_loss(model: Transformer, blocks_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each block's tokens after its first."""
    hidden, _ = model.decode(blocks_BT[:, :-1])
    return model.loss(hidden, blocks_BT[:, 1:])


def train_step(
    model: Transformer, optimizer: torch.optim.Optimizer, micro_batches: list[Tensor], step: int, settings: TransformerSettings
) -> float:
    """One optimizer step over the mean loss of ``micro_batches``; returns that loss."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for blocks in micro_batches:
        loss = next_token_loss(model, blocks) / len(micro_batches)
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    return total


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
    torch.manual_seed(seed)
    model = Transformer(model_config(settings, data.vocab_size)).to(device).train()
    losses, seconds = fit(model, data.blocks, settings, seed=seed, checkpoints=checkpoints, progress=progress)
    save_model(model.cpu(), out)
    shutil.copy(data.tokenizer_path, out / "tokenizer.json")
    (out / "history.json").write_text(json.dumps({"loss": losses}))
    tokens = settings.steps * settings.batch_size * settings.accumulate * data.block_size
    facts = {
        "parameters": model.config.parameters(), "steps": settings.steps, "tokens": tokens, "final_loss": float(np.mean(losses[-20:])),
        "seconds": seconds, "tokens_per_second": tokens / seconds if seconds else 0.0, "block_size": data.block_size,
        "train_flops_per_token": model.config.train_flops_per_token(data.block_size),
    }
    return ModelArtifact(out, facts)


def fit(
    model: Transformer, blocks: Tensor, settings: TransformerSettings, *, seed: int, checkpoints: Path, progress: Callable[[str], None]
) -> tuple[list[float], float]:
    """The loop: the loss of every step, and the seconds this process spent (steps before a resume scaled in)."""
    optimizer = make_optimizer(model, settings)
    device = next(model.parameters()).device
    run = digest_of([settings.model_dump(mode="json"), seed, list(blocks.shape), int(blocks.sum())])
    start, losses = load_checkpoint(checkpoints, model, optimizer, run=run) or (0, [])
    if start:
        progress(f"resumed at step {start}/{settings.steps}")
    begun, size = time.perf_counter(), settings.batch_size * settings.accumulate
    for step in range(start, settings.steps):
        rows = batch_rows(step, len(blocks), size, seed).reshape(settings.accumulate, -1)
        micro = [blocks[torch.from_numpy(r)].to(device) for r in rows]
        losses.append(train_step(model, optimizer, micro, step, settings))
        done = step + 1
        if done % settings.checkpoint_every == 0 and done < settings.steps:
            save_checkpoint(checkpoints, model, optimizer, step=done, losses=losses, run=run)
        if done % 25 == 0 or done == settings.steps:
            rate = (done - start) * size * (blocks.shape[1] - 1) / (time.perf_counter() - begun)
            progress(f"step {done}/{settings.steps} loss {np.mean(losses[-25:]):.3f} {rate / 1000:.1f}k tok/s")
    ran = max(1, settings.steps - start)
    return losses, (time.perf_counter() - begun) * settings.steps / ran
