"""Gradient accumulation against the big batch, and activation checkpointing against keeping everything: gradients, memory, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from curriculum.artifacts import DirectoryArtifact
from curriculum.cells import Cells
from curriculum.losses import IGNORED
from curriculum.parallel.pipeline import Stage
from curriculum.parallel.runs import read_blocks
from curriculum.parallel.settings import ParallelSettings
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.transformer.attention_study import AllocatedBytes
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPEATS = 7
REMARKS = [
    "Blocks are cut to unequal lengths, so that the micro-batches hold unequal numbers of target tokens. by_tokens divides the summed losses "
    "by the tokens of the whole step; by_means divides each micro-batch's mean by their number, which is another gradient.",
    "Peak bytes are those of tensors that operations make, exact to the byte; parameters are not among them, gradients are.",
    "Seconds are medians of interleaved repeats on a machine that others may use: the claim on them warns and does not block.",
]


def step_gradient(
    model: Transformer, ids_BT: Tensor, targets_BT: Tensor, *, parts: int, recompute: bool = False, by_tokens: bool = True
) -> dict[str, Tensor]:
    """Gradients of one step over ``parts`` micro-batches, by parameter.

    Args:
        targets_BT: -100 where no token is asked.
        by_tokens: divide summed losses by the tokens of the whole step; otherwise a mean of the micro-batches' means.
    """
    stage = Stage(model, 0, len(model.decoder.blocks), recompute=recompute)
    model.zero_grad(set_to_none=True)
    asked = int((targets_BT != IGNORED).sum())
    for ids, targets in zip(ids_BT.chunk(parts), targets_BT.chunk(parts), strict=True):
        total = F.cross_entropy(stage(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        (total / (asked if by_tokens else parts * int((targets != IGNORED).sum()))).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def relative_error(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Norm of the difference of two gradients over the norm of the second; NaN where one lacks a parameter."""
    if found.keys() != wanted.keys():
        return float("nan")
    square = sum(float((found[name] - wanted[name]).double().square().sum()) for name in wanted)
    return (square / sum(float(value.double().square().sum()) for value in wanted.values())) ** 0.5


def unequal_batch(blocks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets [B, T] of blocks [B, T + 1], each asked up to a length of its own; later blocks are shorter."""
    length = blocks.shape[1] - 1
    generator = torch.Generator().manual_seed(seed)
    kept = torch.linspace(length, max(2, length // 8), len(blocks)) * (0.8 + 0.2 * torch.rand(len(blocks), generator=generator))
    targets = blocks[:, 1:].clone()
    targets[torch.arange(length)[None, :] >= kept.round()[:, None]] = IGNORED
    return blocks[:, :-1], targets


def _model(settings: ParallelSettings, vocab_size: int, seed: int, dtype: torch.dtype) -> Transformer:
    torch.manual_seed(seed)
    s = settings
    return Transformer(ModelConfig(vocab_size, s.layers, s.width, s.heads, s.kv_heads, s.hidden, tied=False)).to(dtype)


def equality_cell(blocks: Tensor, vocab_size: int, settings: ParallelSettings, seed: int) -> dict[str, Any]:
    """Relative errors of accumulated and of checkpointed gradients, in double and in single precision."""
    ids, targets = unequal_batch(blocks[: settings.step_blocks], seed)
    found: dict[str, Any] = {}
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        model = _model(settings, vocab_size, seed, dtype)
        whole = step_gradient(model, ids, targets, parts=1)
        found[f"by_tokens__{name}"] = relative_error(step_gradient(model, ids, targets, parts=settings.parts), whole)
        found[f"by_means__{name}"] = relative_error(step_gradient(model, ids, targets, parts=settings.parts, by_tokens=False), whole)
        found[f"recomputed__{name}"] = relative_error(step_gradient(model, ids, targets, parts=1, recompute=True), whole)
    return found


def cost_cell(blocks: Tensor, vocab_size: int, settings: ParallelSettings, seed: int) -> dict[str, Any]:
    """Peak bytes and median seconds of a step: whole and in parts, with everything kept and with blocks recomputed."""
    ids, targets = unequal_batch(blocks[: settings.step_blocks], seed)
    model = _model(settings, vocab_size, seed, torch.float32)
    ways = [(parts, recompute) for parts in sorted({1, settings.parts}) for recompute in (False, True)]
    seconds: dict[tuple[int, bool], list[float]] = {way: [] for way in ways}
    for _ in range(REPEATS):
        for parts, recompute in ways:
            begun = time.perf_counter()
            step_gradient(model, ids, targets, parts=parts, recompute=recompute)
            seconds[parts, recompute].append(time.perf_counter() - begun)
    rows = []
    for parts, recompute in ways:
        model.zero_grad(set_to_none=True)
        with AllocatedBytes() as memory:
            step_gradient(model, ids, targets, parts=parts, recompute=recompute)
        median = statistics.median(seconds[parts, recompute])
        rows.append({"micro_batches": parts, "recomputed": recompute, "peak_bytes": memory.peak, "seconds": median})
    return {"rows": rows}


def accumulation_study(
    corpus: DirectoryArtifact, settings: ParallelSettings, *, seed: int, checkpoints: Path, progress: Callable[[str], None]
) -> StudyResult:
    """Both cells as one result."""
    blocks, vocab_size = read_blocks(corpus, settings)
    cells, kept = Cells(checkpoints, progress), [settings.model_dump(mode="json"), seed]
    errors = cells.get("equality", kept, lambda: equality_cell(blocks, vocab_size, settings, seed))
    progress(f"accumulated against whole: {errors['by_tokens__float64']:.1e} in double precision")
    costs = pd.DataFrame(cells.get("cost", kept, lambda: cost_cell(blocks, vocab_size, settings, seed))["rows"])
    at = costs.set_index(["micro_batches", "recomputed"])
    memory, spent = at["peak_bytes"], at["seconds"]
    n, parts = settings.step_blocks, settings.parts
    metrics = [Metric(name=name, value=value, n=n, higher_is_better=False) for name, value in errors.items()]
    metrics += [
        Metric(name="accumulation_memory", value=memory[parts, False] / memory[1, False], n=n, higher_is_better=False),
        Metric(name="checkpoint_memory", value=memory[1, True] / memory[1, False], n=n, higher_is_better=False),
        Metric(name="checkpoint_seconds", value=spent[1, True] / spent[1, False], n=REPEATS, higher_is_better=False, deterministic=False),
    ]
    plots = {"memory": _bars(costs, "peak_bytes", 2**20, "MiB at the peak"), "seconds": _bars(costs, "seconds", 1e-3, "ms a step")}
    return StudyResult(
        study="accumulation_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=[seed], remarks=REMARKS,
        tables={"costs": costs}, plots=plots,
    )  # fmt: skip


def _bars(costs: pd.DataFrame, column: str, unit: float, label: str) -> bytes:
    names = [f"{row.micro_batches} in turn,\n{'recomputed' if row.recomputed else 'kept'}" for row in costs.itertuples()]

    def paint(axes: Axes) -> None:
        axes.bar(names, costs[column] / unit, color=["C1" if recomputed else "C0" for recomputed in costs["recomputed"]])

    return draw(paint, title="One step over the same blocks", y=label)
