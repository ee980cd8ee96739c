"""Integer codes from scratch: absmax and zero-point, each with the scale's scope and the rounding that a library uses.

NF4, which is no grid of equal steps, is in :mod:`curriculum.adaptation.nf4`. Shape suffixes: R rows, C columns, N blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32  # weights that share a scale in GGUF's simple formats


@dataclass(frozen=True)
class Codes:
    """``values`` [groups, size] are the integers; a group is a row, a block or the whole tensor. w' = scales (values - zeros) + offsets.

    ``scales``, ``zeros`` and ``offsets`` are [groups, 1]; ``bits`` counts a weight's code and its share of the constants.
    """

    values: Tensor
    scales: Tensor
    bits: float
    zeros: Tensor | float = 0.0
    offsets: Tensor | float = 0.0

    def decode(self) -> Tensor:
        """float32 [groups, size]."""
        return self.scales.float() * (self.values.float() - self.zeros) + self.offsets


def absmax_rows(weight_RC: Tensor, *, reach: float = 127.0) -> Codes:
    """Symmetric int8, a float32 scale a row: the largest magnitude gets the code ``reach`` (LLM.int8(), Dettmers et al., 2022).

    bitsandbytes divides by 127. PyTorch divides by 127.5, half the codes' range, and cuts the one value that then rounds to 128.
    Ties round to even.
    """
    largest_R1 = weight_RC.abs().amax(1, keepdim=True).float()
    scales = torch.where(largest_R1 > 0, largest_R1, 1.0) / reach
    inverse = reach / torch.where(largest_R1 > 0, largest_R1, 1.0) if reach == 127.0 else 1 / scales  # as each library multiplies
    values = torch.round(weight_RC.float() * inverse).clamp(-128, 127).to(torch.int8)
    return Codes(values, scales, 8 + 32 / weight_RC.shape[1])


def zero_point(weight: Tensor) -> Codes:
    """Affine uint8 over the whole tensor: 0 to 255 span the values, and zero has a code of its own (Jacob et al., 2018).

    One group: values uint8 [1, weights]. As PyTorch does by a fused multiply-add, w / s + z is rounded to a float32 once and only then to
    an integer, ties to even: where z is odd, a tie goes the other way than it would without z.
    """
    flat = weight.reshape(1, -1).float()
    low, high = flat.amin().clamp(max=0), flat.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale > 0, scale, 1.0)
    zero = (-torch.round(low / scale)).clamp(0, 255)
    values = torch.round((flat.double() * (1 / scale).double() + zero.double()).float()).clamp(0, 255).to(torch.uint8)
    return Codes(values, scale.reshape(1, 1), 8 + 40 / weight.numel(), zeros=zero)


def q8_0(weight: Tensor) -> Codes:
    """GGUF's Q8_0: absmax over blocks of 32, float16 scales, codes from the unrounded scale, ties away from zero. int8 [N, 32]."""
    blocks = weight.reshape(-1, BLOCK).float()
    scales = blocks.abs().amax(1, keepdim=True) / 127
    scaled = blocks * torch.where(scales > 0, 1 / scales, 0.0)
    away = torch.sign(scaled) * torch.floor(scaled.abs() + 0.5)
    return Codes(away.to(torch.int8), scales.half(), 8 + 16 / BLOCK)


def q4_1(weight: Tensor) -> Codes:
    """GGUF's Q4_1: 16 equal steps from the least of a block of 32 to its largest; float16 step and least value. uint8 [N, 32]."""
    blocks = weight.reshape(-1, BLOCK).float()
    low = blocks.amin(1, keepdim=True)
    scales = (blocks.amax(1, keepdim=True) - low) / 15
    scaled = (blocks - low) * torch.where(scales > 0, 1 / scales, 0.0)
    values = torch.floor(scaled + 0.5).clamp(0, 15).to(torch.uint8)
    return Codes(values, scales.half(), 4 + 32 / BLOCK, offsets=low.half().float())


def step_error(codes: Codes) -> float:
    """The root mean square of rounding to equal steps, s / sqrt(12), over groups of equal size."""
    return float((codes.scales.float().square().mean() / 12).sqrt())
