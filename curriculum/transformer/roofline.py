"""The roofline of attention: FLOP/s reached against FLOPs a byte moved, under the machine's two roofs (Williams et al., 2009)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from curriculum.hardware import matmul_peak_flops, memory_bandwidth, timed
from curriculum.plots import draw
from curriculum.transformer.settings import AttentionStudySettings

Form = Callable[[Tensor, Tensor, Tensor], Tensor]


def attention_flops(length: int, heads: int, head_dim: int) -> float:
    """FLOPs of the two products, q k^T and weights v, of every query with every key. The softmax is not counted."""
    return 4.0 * heads * length**2 * head_dim


def attention_traffic(form: str, length: int, heads: int, head_dim: int, tile: int, width: int = 4) -> float:
    """Bytes that cross memory in a forward pass by the form's own schedule, ``width`` bytes a number.

    Naive: the scores cross it six times (made; read and written by the scale and by the softmax; read by the last product). Tiled:
    queries and output once, keys and values once for every tile of queries. Fused kernels: what they cannot do without, inputs and
    output once. A cache that holds more than the schedule asks of it moves less.
    """
    once = heads * length * head_dim * width
    if form == "naive":
        return 4 * once + 6 * heads * length**2 * width
    return 2 * once + 2 * once * (-(-length // tile) if form == "tiled" else 1)


def roofline(
    forms: Mapping[str, Form], settings: AttentionStudySettings, seed: int, device: str = "cpu", precision: str = "float32"
) -> tuple[pd.DataFrame, dict[str, float]]:
    """A row a form and length of a forward pass (batch 1, not causal), and the two roofs, ``peak`` FLOP/s and ``bandwidth`` bytes/s."""
    generator, dtype, rows = torch.Generator().manual_seed(seed), getattr(torch, precision), []
    roofs = {"peak": matmul_peak_flops(device=device, precision=precision), "bandwidth": memory_bandwidth(device=device)}
    for length in settings.lengths:
        q, k, v = (torch.randn(1, settings.heads, length, settings.head_dim, generator=generator).to(device, dtype) for _ in range(3))
        flops = attention_flops(length, settings.heads, settings.head_dim)
        for name, form in forms.items():
            form(q, k, v)
            seconds = statistics.median(timed(partial(form, q, k, v), device) for _ in range(settings.repeats))
            moved = attention_traffic(name, length, settings.heads, settings.head_dim, settings.tile, q.element_size())
            roof = min(roofs["peak"], roofs["bandwidth"] * flops / moved)
            rows.append({
                "form": name, "length": length, "forward_seconds": seconds, "flops_a_byte": flops / moved,
                "gflops": flops / seconds / 1e9, "roof_gflops": roof / 1e9, "share_of_roof": flops / seconds / roof,
            })  # fmt: skip
    return pd.DataFrame(rows), roofs


def draw_roofline(table: pd.DataFrame, roofs: Mapping[str, float]) -> bytes:
    """The two roofs as one broken line, and a line a form, short sequences first."""
    ridge = roofs["peak"] / roofs["bandwidth"]

    def paint(axes: Any) -> None:
        reach = np.array([min(1.0, ridge / 4), ridge, max(4 * ridge, 1.5 * table["flops_a_byte"].max())])
        roof = np.minimum(roofs["peak"], roofs["bandwidth"] * reach) / 1e9
        axes.loglog(reach, roof, color="black", linewidth=1, label=f"roofs, ridge at {ridge:.1f}")
        for form, rows in table.groupby("form"):
            axes.loglog(rows["flops_a_byte"], rows["gflops"], marker="o", markersize=4, label=form)
            axes.annotate(f"{rows['length'].iloc[-1]}", (rows["flops_a_byte"].iloc[-1], rows["gflops"].iloc[-1]), fontsize=7)

    return draw(paint, title="Roofline of attention, forward pass", x="FLOPs a byte moved", y="GFLOP/s")
