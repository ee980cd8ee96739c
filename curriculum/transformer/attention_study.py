"""Attention measured: parity of the three forms, and how time and peak memory grow with the sequence length."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.transformer.attention import causal_mask, fused_attention, naive_attention, tiled_attention
from curriculum.transformer.settings import AttentionStudySettings


class AllocatedBytes(TorchDispatchMode):
    """Live and peak bytes of the tensors that operations make inside the block.

    Counting storages as they appear and die is exact and repeats to the byte, where resident memory moves with the
    allocator. What it cannot see is scratch space inside one fused kernel, which never becomes a tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def parity_cases(seed: int) -> dict[str, dict[str, Any]]:
    """Inputs of every case: plain, causal, padded, cross, and grouped-query, at lengths that do not divide by the tile."""
    generator = torch.Generator().manual_seed(seed)

    def make(heads: int, groups: int, queries: int, keys: int) -> dict[str, Any]:
        shapes = ((2, heads, queries, 16), (2, groups, keys, 16), (2, groups, keys, 16))
        return dict(zip("qkv", (torch.randn(s, generator=generator) for s in shapes), strict=True))

    lengths = torch.tensor([29, 37])
    padding = (torch.arange(37)[None, :] < lengths[:, None])[:, None, None, :]
    return {
        "plain": make(4, 4, 37, 37) | {"mask": None, "causal": False},
        "causal": make(4, 4, 37, 37) | {"mask": None, "causal": True},
        "padding": make(4, 4, 37, 37) | {"mask": padding, "causal": False},
        "causal and padding": make(4, 4, 37, 37) | {"mask": padding, "causal": True},
        "cross": make(4, 4, 21, 37) | {"mask": None, "causal": False},
        "grouped-query": make(8, 2, 37, 37) | {"mask": None, "causal": True},
    }


def _with_gradients(function: Callable[..., Tensor], case: dict[str, Any], **options: Any) -> list[Tensor]:
    q, k, v = (case[name].clone().requires_grad_() for name in "qkv")
    out = function(q, k, v, **options)
    out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape))
    return [out.detach(), *(x.grad for x in (q, k, v))]


def parity_errors(case: dict[str, Any], tile: int = 16) -> dict[str, float]:
    """Largest absolute difference of naive and tiled attention to torch's, forward and in the gradients of q, k and v."""
    queries, keys = case["q"].shape[-2], case["k"].shape[-2]
    mask = case["mask"]
    if case["causal"]:
        mask = causal_mask(queries, keys) if mask is None else mask & causal_mask(queries, keys)
    reference = _with_gradients(fused_attention, case, mask=mask)
    ours = {
        "naive": _with_gradients(naive_attention, case, mask=mask),
        "tiled": _with_gradients(tiled_attention, case, mask=case["mask"], causal=case["causal"], tile=tile),
    }
    errors = {}
    for name, found in ours.items():
        apart = [float((a - b).abs().max()) for a, b in zip(found, reference, strict=True)]
        errors |= {f"{name}_forward": apart[0], f"{name}_gradient": max(apart[1:])}
    return errors


def growth(settings: AttentionStudySettings, seed: int, progress: Callable[[str], None]) -> pd.DataFrame:
    """One row a form and length: median seconds and peak bytes of a forward and backward pass (batch 1, causal)."""
    generator, rows = torch.Generator().manual_seed(seed), []
    for length in settings.lengths:
        shape = (1, settings.heads, length, settings.head_dim)
        case = {name: torch.randn(shape, generator=generator) for name in "qkv"}
        forms: dict[str, Callable[[], Any]] = {
            "naive": lambda case=case, n=length: _with_gradients(naive_attention, case, mask=causal_mask(n, n)),
            "tiled": lambda case=case: _with_gradients(tiled_attention, case, causal=True, tile=settings.tile),
            "sdpa": lambda case=case: _with_gradients(fused_attention, case, causal=True),
        }
        for form, call in forms.items():
            with AllocatedBytes() as memory:
                call()
            times = []
            for _ in range(settings.repeats):
                begun = time.perf_counter()
                call()
                times.append(time.perf_counter() - begun)
            rows.append({"form": form, "length": length, "seconds": statistics.median(times), "peak_bytes": memory.peak})
        progress(f"length {length}: " + ", ".join(f"{r['form']} {1000 * r['seconds']:.0f} ms" for r in rows[-3:]))
    return pd.DataFrame(rows)


def exponent(lengths: np.ndarray, values: np.ndarray) -> float:
    """Slope of log(values) over log(lengths): 2 for quadratic growth."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def attention_study(settings: AttentionStudySettings, *, seed: int, progress: Callable[[str], None]) -> StudyResult:
    """Parity over every case, and the fitted exponents of time and peak memory."""
    cases = pd.DataFrame([{"case": name} | parity_errors(case) for name, case in parity_cases(seed).items()])
    table = growth(settings, seed, progress)
    errors = {kind: float(cases[[c for c in cases if c.endswith(kind)]].to_numpy().max()) for kind in ("forward", "gradient")}
    metrics = [
        Metric(name="parity_max_abs_error", value=errors["forward"], n=len(cases), higher_is_better=False),
        Metric(name="gradient_max_abs_error", value=errors["gradient"], n=len(cases), higher_is_better=False),
    ]
    for form, rows in table.groupby("form"):
        lengths = rows["length"].to_numpy()
        memory, seconds = exponent(lengths, rows["peak_bytes"].to_numpy()), exponent(lengths, rows["seconds"].to_numpy())
        metrics.append(Metric(name=f"memory_exponent__{form}", value=memory, n=len(rows), higher_is_better=False))
        metrics.append(Metric(name=f"time_exponent__{form}", value=seconds, n=len(rows), higher_is_better=False, deterministic=False))
    per_example = cases.rename(columns={"case": "example_id"})
    remarks = ["Naive attention holds the T x T scores and their gradient, so memory grows with T squared; tiles keep it linear."]
    return StudyResult(
        study="attention_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=[seed], remarks=remarks,
        per_example=per_example, tables={"parity": cases, "growth": table},
        plots={"memory": _plot(table, "peak_bytes", "peak bytes"), "time": _plot(table, "seconds", "seconds")},
    )


def _plot(table: pd.DataFrame, column: str, label: str) -> bytes:
    def paint(axes: Any) -> None:
        for form, rows in table.groupby("form"):
            slope = exponent(rows["length"].to_numpy(), rows[column].to_numpy())
            axes.loglog(rows["length"], rows[column], marker="o", label=f"{form}: exponent {slope:.2f}")

    return draw(paint, title=f"Attention, forward and backward: {label}", x="sequence length", y=label)
