"""Feed-forward blocks: dense in six activations, and routed to experts with the losses that keep the load even."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curriculum.transformer.config import ModelConfig


def activate(x: Tensor, activation: str) -> Tensor:
    """The non-linearity alone; of a gated block (Shazeer, 2020) ``x`` is [..., 2 hidden], gate first, and the result [..., hidden]."""
    if activation == "relu":
        return F.relu(x)
    if activation in {"gelu", "gelu_tanh"}:
        return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    gate, up = x.chunk(2, dim=-1)
    if activation == "swiglu":
        return F.silu(gate) * up
    return F.gelu(gate, approximate="tanh" if activation == "geglu_tanh" else "none") * up


class FeedForward(nn.Module):
    """down(activation(up(x))); gate and up of a gated block are one matrix, gate first."""

    def __init__(self, config: ModelConfig, hidden: int) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.width, (2 if config.gated else 1) * hidden, bias=config.biases)
        self.down = nn.Linear(hidden, config.width, bias=config.biases)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(activate(self.up(x), self.activation))


class Experts(nn.Module):
    """A routed feed-forward block (Shazeer et al., 2017): each token goes to its ``experts_per_token`` best experts, and to the shared ones.

    No token is dropped. ``softmax``: the kept probabilities, made to sum to 1, weigh the experts' outputs (Mixtral). ``sigmoid``: the
    score weighs the expert's input (Llama 4).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        up = (2 if config.gated else 1) * config.expert_hidden
        self.router = nn.Linear(config.width, config.experts, bias=False)
        self.up = nn.Parameter(torch.empty(config.experts, up, config.width))
        self.down = nn.Parameter(torch.empty(config.experts, config.width, config.expert_hidden))
        self.shared = FeedForward(config, config.shared_experts * config.expert_hidden) if config.shared_experts else None

    def forward(self, x: Tensor, routes: list[Tensor] | None = None) -> Tensor:
        """[..., width] to the same; appends the router's logits [tokens, experts] to ``routes``."""
        flat = x.reshape(-1, x.shape[-1])
        logits = self.router(flat)
        if routes is not None:
            routes.append(logits)
        out = self.shared(flat) if self.shared is not None else torch.zeros_like(flat)
        weight_NK, expert_NK = route(logits, self.config.experts_per_token, self.config.router)
        for expert in range(self.config.experts):
            token, place = (expert_NK == expert).nonzero(as_tuple=True)
            if len(token):
                weight = weight_NK[token, place, None]
                seen = flat[token] * weight if self.config.router == "sigmoid" else flat[token]
                made = F.linear(activate(F.linear(seen, self.up[expert]), self.config.activation), self.down[expert])
                out = out.index_add(0, token, made if self.config.router == "sigmoid" else made * weight)
        return out.view_as(x)


def route(logits: Tensor, kept: int, router: str) -> tuple[Tensor, Tensor]:
    """Weights and numbers of each token's ``kept`` experts, both [tokens, kept], from the router's logits [tokens, experts]."""
    top, expert = logits.topk(kept, dim=-1)
    return (top.sigmoid() if router == "sigmoid" else top.softmax(-1)), expert


def balance_loss(logits: Tensor, kept: int) -> Tensor:
    """experts * sum over experts of (choices of it a token) * (its mean probability): ``kept`` when even (Fedus et al., 2022, eq. 4).

    ``logits``: [tokens, experts] of one layer or of several together.
    """
    chosen = F.one_hot(logits.topk(kept, dim=-1).indices, logits.shape[-1]).float().sum(1).mean(0)
    return logits.shape[-1] * (chosen * logits.softmax(-1).mean(0)).sum()


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-partition of the router, which keeps its logits small (Zoph et al., 2022, eq. 5)."""
    return logits.logsumexp(-1).square().mean()


def load_entropy(logits: Tensor, kept: int) -> float:
    """Entropy of the share of choices each expert gets, over that of the uniform share: 1 is even, 0 is all to one."""
    share = F.one_hot(logits.topk(kept, dim=-1).indices, logits.shape[-1]).float().sum((0, 1))
    share = share / share.sum()
    return float(torch.special.entr(share).sum() / torch.log(torch.tensor(float(logits.shape[-1]))))
