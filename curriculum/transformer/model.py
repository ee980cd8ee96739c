"""The mini-Transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU. One frozen configuration, one block.

Other families (LayerNorm, GELU, other positions, an encoder) are to be further values of the same configuration.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from curriculum.transformer.attention import causal_mask, fused_attention

Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only shape. ``kv_heads`` heads of keys and values are shared by ``heads`` heads of queries."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def parameters(self) -> int:
        """Number of weights; the output embedding is the input embedding."""
        attention = self.width * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.vocab_size * self.width + self.layers * (attention + 3 * self.width * self.hidden + 2 * self.width) + self.width

    def train_flops_per_token(self, length: int) -> float:
        """FLOPs of forward and backward a token: 6 a weight used in a product, and the attention scores (Kaplan et al., 2020)."""
        products = self.parameters() - self.width * (2 * self.layers + 1)
        return 6 * products + 12 * self.layers * self.width * length / 2  # a causal query sees half the keys on average


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rope_angles(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [T, head_dim] of rotary position embedding (Su et al., 2021), halves laid side by side as Llama does."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    angle = positions.float()[:, None] * frequency[None, :]
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x_BHTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Each pair (i, i + D/2) of the head dimension turned by its position's angle."""
    first, second = x_BHTD.chunk(2, dim=-1)
    return x_BHTD * cos_TD + torch.cat((-second, first), dim=-1) * sin_TD


class Attention(nn.Module):
    """Causal grouped-query self-attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        key_width = config.kv_heads * config.head_dim
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, key_width, bias=False)
        self.v = nn.Linear(config.width, key_width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x_BTC: Tensor, angles: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, _ = x_BTC.shape
        q, k, v = (p(x_BTC).view(batch, length, -1, self.config.head_dim).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = rotate(q, *angles), rotate(k, *angles)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        if past is None:
            mixed = fused_attention(q, k, v, causal=True)
        else:
            mixed = fused_attention(q, k, v, causal_mask(length, k.shape[2], x_BTC.device))
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1)), (k, v)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm, self.attention = RMSNorm(config.width, config.norm_eps), Attention(config)
        self.feed_forward_norm, self.feed_forward = RMSNorm(config.width, config.norm_eps), SwiGLU(config)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mixed, present = self.attention(self.attention_norm(x), angles, past)
        x = x + mixed
        return x + self.feed_forward(self.feed_forward_norm(x)), present


class MiniTransformer(nn.Module):
    """Token ids [B, T] to logits [B, T, vocabulary]; input and output embeddings are one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:  # residual branches start smaller, so that depth does not grow the variance (GPT-2)
                shrink = (2 * config.layers) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 * shrink)

    def forward(self, ids_BT: Tensor, past: Cache | None = None) -> Tensor:
        return self.step(ids_BT, past)[0]

    def step(self, ids_BT: Tensor, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits of ``ids_BT`` after what ``past`` holds, and the cache with them added: keys and values [B, G, S, D] a layer."""
        begin = past[0][0].shape[2] if past else 0
        positions = torch.arange(begin, begin + ids_BT.shape[1], device=ids_BT.device)
        angles = rope_angles(positions, self.config.head_dim, self.config.rope_theta)
        x, cache = self.embedding(ids_BT), []
        for number, block in enumerate(self.blocks):
            x, present = block(x, angles, past[number] if past else None)
            cache.append(present)
        return F.linear(self.norm(x), self.embedding.weight), cache

    @torch.no_grad()
    def generate(self, ids: list[int], new_tokens: int, *, temperature: float = 0.0, seed: int = 0) -> list[int]:
        """``ids`` continued by ``new_tokens`` tokens: the likeliest one each time, or sampled at ``temperature`` > 0."""
        generator = torch.Generator().manual_seed(seed)
        logits, cache = self.step(torch.tensor([ids]))
        out = list(ids)
        for _ in range(new_tokens):
            last = logits[0, -1]
            if temperature > 0:
                token = int(torch.multinomial((last / temperature).softmax(-1), 1, generator=generator))
            else:
                token = int(last.argmax())
            out.append(token)
            logits, cache = self.step(torch.tensor([[token]]), cache)
        return out


def save_model(model: MiniTransformer, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json``."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(model.config), indent=1))


def load_model(folder: Path) -> MiniTransformer:
    """Read what :func:`save_model` wrote, in evaluation mode."""
    model = MiniTransformer(ModelConfig(**json.loads((folder / "config.json").read_text())))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def leak_probe(model: nn.Module, vocab_size: int, *, length: int = 48, seed: int = 0) -> float:
    """Largest change of the logits before a position when the tokens from it on change: 0 for a causal model."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (2, length), generator=generator)
    changed, cut = ids.clone(), length // 2
    changed[:, cut:] = torch.randint(vocab_size, (2, length - cut), generator=generator)
    with torch.no_grad():
        return float((model(ids)[:, :cut] - model(changed)[:, :cut]).abs().max())
