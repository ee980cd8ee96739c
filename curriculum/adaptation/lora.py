"""LoRA from scratch (Hu et al., 2021): a frozen linear layer plus a trainable product of two thin matrices."""

from __future__ import annotations

import math

import torch
from torch import nn


class LoraLinear(nn.Module):
    """``y = x W^T + b + (alpha / rank) x A^T B^T`` with ``W`` [out, in] frozen, ``A`` [rank, in], ``B`` [out, rank].

    ``B`` starts at zero, so the layer starts equal to ``base``. ``A`` starts as a linear layer's weight does.

    Raises:
        ValueError: the rank is not between 1 and the smaller side of ``W``.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not 1 <= rank <= min(base.in_features, base.out_features):
            raise ValueError(f"rank must lie in [1, {min(base.in_features, base.out_features)}], got {rank}")
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        like = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.a = nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5), generator=generator)
        self.merged = False

    def update(self) -> torch.Tensor:
        """What the adapter adds to the weight: [out, in], of rank at most ``rank``."""
        return self.scale * self.b @ self.a

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]. The two thin products are never multiplied into a full matrix."""
        y = self.base(x)
        return y if self.merged else y + self.scale * (x @ self.a.T) @ self.b.T

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update into the weight: no cost at inference, and the same outputs up to rounding."""
        if not self.merged:
            self.base.weight += self.update()
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out of the weight again."""
        if self.merged:
            self.base.weight -= self.update()
            self.merged = False
