"""Attention measured: parity of its forms, how time and peak memory grow with the sequence length, and how near the roofs they come."""

from __future__ import annotations

import importlib.util
import statistics
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from curriculum.hardware import timed
from curriculum.plots import draw
from curriculum.results import Metric, StudyResult
from curriculum.transformer.attention import causal_mask, fused_attention, naive_attention, tiled_attention
from curriculum.transformer.roofline import draw_roofline, roofline
from curriculum.transformer.settings import AttentionStudySettings

_COLUMNS = {"memory": "peak_bytes", "time": "seconds"}


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
    out.backward(torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype))
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


def kernel_error(case: dict[str, Any], device: str, precision: str, tile: tuple[int, int] | None = None) -> float:
    """Largest absolute difference of the Triton kernels to naive attention in float32 on the same rounded inputs, gradients included."""
    from curriculum.transformer.triton_attention import triton_attention

    rounded = {name: case[name].to(device, getattr(torch, precision)) for name in "qkv"}
    padding, queries, keys = case["mask"], case["q"].shape[-2], case["k"].shape[-2]
    padding = None if padding is None else padding.to(device)
    seen = causal_mask(queries, keys, torch.device(device)) if case["causal"] else None
    mask = seen if padding is None else padding if seen is None else padding & seen
    reference = _with_gradients(naive_attention, {name: x.float() for name, x in rounded.items()}, mask=mask)
    found = _with_gradients(triton_attention, rounded, mask=padding, causal=case["causal"], tile=tile)
    return max(float((a.float() - b).abs().max()) for a, b in zip(found, reference, strict=True))


def forms(settings: AttentionStudySettings, device: str = "cpu", precision: str = "float32") -> dict[str, Callable[..., Tensor]]:
    """The forms that run on ``device``, each a function of q, k, v and ``causal``: on a GPU SDPA's flash backend, and the Triton kernels.

    Flash has no float32: in it SDPA takes the backend it likes.
    """

    def naive(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
        return naive_attention(q, k, v, causal_mask(q.shape[-2], k.shape[-2], q.device) if causal else None)

    def flash(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return fused_attention(q, k, v, causal=causal)

    found = {"naive": naive, "tiled": partial(tiled_attention, tile=settings.tile), "sdpa": fused_attention}
    if device.startswith("cuda") and precision != "float32":
        found["sdpa"] = flash
    if device.startswith("cuda") and importlib.util.find_spec("triton"):
        from curriculum.transformer.triton_attention import triton_attention

        found["triton"] = triton_attention
    return found


def growth(
    settings: AttentionStudySettings, seed: int, progress: Callable[[str], None], device: str = "cpu", precision: str = "float32"
) -> pd.DataFrame:
    """One row a form and length: median seconds and peak bytes of a forward and backward pass (batch 1, causal)."""
    generator, rows = torch.Generator().manual_seed(seed), []
    for length in settings.lengths:
        shape = (1, settings.heads, length, settings.head_dim)
        case = {name: torch.randn(shape, generator=generator).to(device, getattr(torch, precision)) for name in "qkv"}
        for name, form in forms(settings, device, precision).items():
            with AllocatedBytes() as memory:
                _with_gradients(form, case, causal=True)
            times = [timed(partial(_with_gradients, form, case, causal=True), device) for _ in range(settings.repeats)]
            rows.append({"form": name, "length": length, "seconds": statistics.median(times), "peak_bytes": memory.peak})
        progress(f"length {length}: " + ", ".join(f"{r['form']} {1000 * r['seconds']:.0f} ms" for r in rows if r["length"] == length))
    return pd.DataFrame(rows)


def exponent(lengths: np.ndarray, values: np.ndarray) -> float:
    """Slope of log(values) over log(lengths): 2 for quadratic growth."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """A row a form: the fitted exponents of time and of peak memory, and the values at the longest length they were fitted to."""
    rows = []
    for form, of_form in table.groupby("form"):
        fitted = {f"{name}_exponent": exponent(of_form["length"].to_numpy(), of_form[c].to_numpy()) for name, c in _COLUMNS.items()}
        rows.append({"form": form, **fitted, "lengths": len(of_form), **of_form.iloc[-1][["length", "seconds", "peak_bytes"]]})
    return pd.DataFrame(rows)


def attention_study(
    settings: AttentionStudySettings, *, seed: int, progress: Callable[[str], None], device: str = "cpu", precision: str = "float32"
) -> StudyResult:
    """Parity over every case, the fitted exponents of time and peak memory, and the roofline. ``precision`` is of a GPU's part alone."""
    precision = precision if device.startswith("cuda") else "float32"
    cases = pd.DataFrame([{"case": name} | parity_errors(case) for name, case in parity_cases(seed).items()])
    table = growth(settings, seed, progress, device, precision)
    fitted = exponents(table)
    points, roofs = roofline(forms(settings, device, precision), settings, seed, device, precision)
    errors = {kind: float(cases[[c for c in cases if c.endswith(kind)]].to_numpy().max()) for kind in ("forward", "gradient")}
    metrics = [
        Metric(name="parity_max_abs_error", value=errors["forward"], n=len(cases), higher_is_better=False),
        Metric(name="tiled_max_abs_error", value=float(cases["tiled_forward"].max()), n=len(cases), higher_is_better=False),
        Metric(name="gradient_max_abs_error", value=errors["gradient"], n=len(cases), higher_is_better=False),
        *(_growth_metric(row, name) for row in fitted.to_dict("records") for name in _COLUMNS),
        Metric(name="matmul_peak", value=roofs["peak"] / 1e9, unit="GFLOP/s", deterministic=False),
        Metric(name="memory_bandwidth", value=roofs["bandwidth"] / 1e9, unit="GB/s", deterministic=False),
        *_roof_metrics(points),
    ]
    if "triton" in set(table["form"]):
        worst = max(kernel_error(case, device, precision) for case in parity_cases(seed).values())
        metrics.append(Metric(name=f"kernel_max_abs_error__{precision}", value=worst, n=len(cases), higher_is_better=False))
    remarks = [
        "Naive attention holds the T x T scores and their gradient, so memory grows with T squared; tiles keep it linear.",
        f"The roofs meet at {roofs['peak'] / roofs['bandwidth']:.1f} FLOPs a byte. The bytes are those of each form's schedule: a form far below "
        "the roof above it waits for neither products nor memory, but spends its time on the softmax and on calls.",
    ]
    return StudyResult(
        study="attention_study", metrics=metrics, settings=settings.model_dump(mode="json"), seeds=[seed], remarks=remarks,
        per_example=cases.rename(columns={"case": "example_id"}),
        tables={"parity": cases, "growth": table, "exponents": fitted, "roofline": points},
        plots={
            "memory": _plot(table, "peak_bytes", "peak bytes"), "time": _plot(table, "seconds", "seconds"),
            "roofline": draw_roofline(points, roofs),
        },
    )  # fmt: skip


def _growth_metric(row: dict[str, Any], name: str) -> Metric:
    column, lengths = f"{name}_exponent", int(row["lengths"])
    return Metric(name=f"{column}__{row['form']}", value=row[column], n=lengths, higher_is_better=False, deterministic=name == "memory")


def _roof_metrics(points: pd.DataFrame) -> list[Metric]:
    """Of the longest sequence: how much of the roof above it each form reaches."""
    longest = points[points["length"] == points["length"].max()]
    return [Metric(name=f"share_of_roof__{row.form}", value=row.share_of_roof, deterministic=False) for row in longest.itertuples()]


def _plot(table: pd.DataFrame, column: str, label: str) -> bytes:
    def paint(axes: Any) -> None:
        for form, rows in table.groupby("form"):
            slope = exponent(rows["length"].to_numpy(), rows[column].to_numpy())
            axes.loglog(rows["length"], rows[column], marker="o", label=f"{form}: exponent {slope:.2f}")

    return draw(paint, title=f"Attention, forward and backward: {label}", x="sequence length", y=label)
