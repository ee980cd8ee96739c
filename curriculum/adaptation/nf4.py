"""NF4 from scratch (Dettmers et al., 2023): 4-bit codes at quantiles of a normal, a scale a block, and the scales quantised again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm

BLOCK = 64
SCALE_BLOCK = 256
# the tail left out on each side, so that the outermost quantile is finite: the mean of 1 - 1/32 and 1 - 1/30
_OFFSET = 0.9677083


def nf4_levels() -> torch.Tensor:
    """float32 [16], ascending from -1 to 1: 8 quantiles on the positive side, 7 on the negative, and an exact zero."""
    positive = norm.ppf(np.linspace(_OFFSET, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(_OFFSET, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([positive, negative, [0.0]]))
    return torch.tensor(levels / levels.max(), dtype=torch.float32)


def dynamic_levels() -> torch.Tensor:
    """float32 [256], ascending: the signed dynamic 8-bit code (Dettmers, 2015), finer near zero by a factor of ten a step."""
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = np.linspace(0.1, 1.0, 2**exponent + 1)
        middles = 10.0 ** (exponent - 6) * (edges[:-1] + edges[1:]) / 2
        values += [*middles, *-middles]
    return torch.tensor(sorted(values), dtype=torch.float32)


def nearest(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """uint8 index of the level nearest to each value; ``levels`` ascending."""
    return torch.bucketize(values, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)


@dataclass(frozen=True)
class Quantised:
    """``codes`` uint8 [ceil(n / 2)], two a byte, the first in the high half; the scales of the blocks, plain or quantised.

    Plain: ``scales`` float32 [blocks]. Double quantisation: ``scales`` uint8 [blocks], ``offset`` their mean, and
    ``scale_scales`` float32 [ceil(blocks / 256)].
    """

    codes: torch.Tensor
    shape: torch.Size
    scales: torch.Tensor
    offset: torch.Tensor | None = None
    scale_scales: torch.Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory of the codes and of every constant needed to read them."""
        parts = [self.codes, self.scales, self.offset, self.scale_scales]
        return sum(p.numel() * p.element_size() for p in parts if p is not None)


def _blocks(values: torch.Tensor, size: int) -> torch.Tensor:
    flat = values.reshape(-1).float()
    return torch.nn.functional.pad(flat, (0, -len(flat) % size)).reshape(-1, size)


def quantise(weight: torch.Tensor, *, double: bool = True) -> Quantised:
    """Quantise a weight of any shape in blocks of 64 along its last dimension."""
    blocks = _blocks(weight, BLOCK)
    scales = blocks.abs().amax(1)
    scaled = blocks / torch.where(scales > 0, scales, 1.0)[:, None]
    codes = nearest(scaled, nf4_levels()).reshape(-1)[: weight.numel()]
    codes = torch.nn.functional.pad(codes, (0, len(codes) % 2))
    packed = codes[0::2] << 4 | codes[1::2]
    if not double:
        return Quantised(packed, weight.shape, scales)
    offset = scales.mean()
    centred = _blocks(scales - offset, SCALE_BLOCK)
    scale_scales = centred.abs().amax(1)
    relative = centred / torch.where(scale_scales > 0, scale_scales, 1.0)[:, None]
    return Quantised(packed, weight.shape, nearest(relative, dynamic_levels()).reshape(-1)[: len(scales)], offset, scale_scales)


def dequantise(q: Quantised) -> torch.Tensor:
    """float32 of the original shape."""
    scales = q.scales
    if q.scale_scales is not None and q.offset is not None:
        scales = dynamic_levels()[scales.long()] * q.scale_scales.repeat_interleave(SCALE_BLOCK)[: len(scales)] + q.offset
    codes = torch.stack([q.codes >> 4, q.codes & 15], dim=1).reshape(-1)[: q.shape.numel()]
    return (nf4_levels()[codes.long()] * scales.repeat_interleave(BLOCK)[: len(codes)]).reshape(q.shape)
