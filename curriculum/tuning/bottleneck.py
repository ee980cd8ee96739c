"""Bottleneck adapters from scratch (Houlsby et al., 2019, https://arxiv.org/abs/1902.00751)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from curriculum.errors import UserError

# the last linear layer of the attention and of the feed-forward sublayer: Llama's names, and those of BERT, where both end alike
SITES = ("o_proj", "down_proj", "output.dense")


class Bottleneck(nn.Module):
    """``h + gelu(h D^T + d) U^T + u`` with ``D`` [width, features] and ``U`` [features, width].

    ``U`` and ``u`` start at zero, so that the adapter starts as the identity, exactly. ``D`` has no gradient until ``U`` has moved.

    Raises:
        ValueError: the width is not positive.
    """

    def __init__(self, features: int, width: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"the width of a bottleneck must be positive, got {width}")
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.normal_(self.down.weight, std=0.01, generator=generator)  # the paper's robust region
        for part in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(part)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """[..., features] -> [..., features]."""
        return h + self.up(functional.gelu(self.down(h)))


class Adapted(nn.Module):
    """A frozen linear layer, then an adapter: the output of a sublayer, before its residual is added."""

    def __init__(self, base: nn.Linear, adapter: Bottleneck) -> None:
        super().__init__()
        self.base, self.adapter = base.requires_grad_(False), adapter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        return self.adapter(self.base(x))


def add_bottlenecks(model: nn.Module, width: int, *, seed: int) -> int:
    """Freeze ``model`` and put an adapter behind both sublayers of every layer, in place; returns how many.

    The normalisation layers, which Houlsby et al. train too, stay frozen here.

    Raises:
        UserError: no layer is named as one of ``SITES``.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear) and name.endswith(SITES)]
    if not found:
        raise UserError(f"no layer of {type(model).__name__} is named {', '.join(SITES)}; bottleneck adapters know Llama's and BERT's names")
    for name, linear in found:
        parent, _, last = name.rpartition(".")
        adapter = Bottleneck(linear.out_features, width, generator=generator).to(linear.weight.device)
        setattr(model.get_submodule(parent), last, Adapted(linear, adapter))
    return len(found)
