"""The one attention and the one block that every family is built of.

Shape suffixes: B batch, H query heads, G key-value heads, T queries, S keys, D head dimension, C width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curriculum.transformer.attention import fused_attention
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.experts import Experts, FeedForward
from curriculum.transformer.positions import rotate


class LayerCache(NamedTuple):
    """Keys and values a layer keeps, [B, G, S, D]; ``across``: those of the encoder's output, made once."""

    keys: Tensor
    values: Tensor
    across: tuple[Tensor, Tensor] | None = None


@dataclass
class Reading:
    """What every layer of a stack is told of the tokens it reads.

    ``begin``: position of the first of them. ``end``: after the last. ``mask_BS``: False at padding, or None. ``rotary``: cos and sin
    [T, D]. ``masks``: what queries may see, by attention kind and number of keys, kept for the next layer that asks.
    """

    begin: int
    end: int
    causal: bool
    window: int
    mask_BS: Tensor | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    bias: nn.Module | None = None
    masks: dict[tuple[str, int], Tensor | None] = field(default_factory=dict)

    def mask(self, kind: str, keys: int, device: torch.device) -> Tensor | None:
        """What SDPA needs beside its causal flag for the last ``keys`` positions: bool or, with a bias, float; None for nothing."""
        if (kind, keys) not in self.masks:
            self.masks[kind, keys] = self._make(kind, keys, device)
        return self.masks[kind, keys]

    def plain(self, kind: str, keys: int) -> bool:
        """Whether causality (or nothing) is all there is to the mask."""
        ordered = not self.causal or (self.begin == 0 and keys == self.end) or self.end - self.begin == 1
        near = kind in {"full", "nope"} or self.end <= self.window
        return self.mask_BS is None and self.bias is None and ordered and near

    def _make(self, kind: str, keys: int, device: torch.device) -> Tensor | None:
        if self.plain(kind, keys):
            return None
        query = torch.arange(self.begin, self.end, device=device)
        key = torch.arange(self.end - keys, self.end, device=device)
        first_B = self.mask_BS.int().argmax(1) if self.mask_BS is not None and kind == "chunk" else query.new_zeros(1)
        # a row's chunks begin at its first token, so that padding on the left does not move their borders
        seen = visible(query - first_B[:, None], key - first_B[:, None], kind, self.window, causal=self.causal)[:, None]
        if self.mask_BS is not None:
            seen = seen & self.mask_BS[:, None, None, -keys:]
        if self.bias is None:
            return seen
        return self.bias(query, key).masked_fill(~seen, torch.finfo(torch.float32).min)


def visible(query_T: Tensor, key_S: Tensor, kind: str, window: int, *, causal: bool) -> Tensor:
    """bool [..., T, S]: which of the positions ``key_S`` [..., S] each query at ``query_T`` [..., T] sees under an attention kind."""
    query, key = query_T[..., :, None], key_S[..., None, :]
    distance = query - key
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if kind == "window":
        seen = seen & (distance.abs() < window)
    if kind == "chunk":
        seen = seen & (query // window == key // window)
    return seen


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias (Ba et al., 2016)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps) * self.weight + self.bias


def make_norm(config: ModelConfig, width: int = 0) -> nn.Module:
    """The configuration's norm, over ``width`` or the model's."""
    return (RMSNorm if config.norm == "rms" else LayerNorm)(width or config.width, config.norm_eps)


class Attention(nn.Module):
    """Grouped-query attention of a sequence to itself, or (``across``) to an encoder's output."""

    def __init__(self, config: ModelConfig, layer: int, *, across: bool = False) -> None:
        super().__init__()
        self.config, self.across, self.kind = config, across, "full" if across else config.attention_kind(layer)
        heads, groups, size = config.heads, config.kv_heads, config.head_dim
        inputs, biased = (heads if across else heads + 2 * groups) * size, config.biases or config.qkv_biases
        self.qkv = nn.Linear(config.width, inputs, bias=biased)
        self.kv = nn.Linear(config.width, 2 * groups * size, bias=biased) if across else None
        self.out = nn.Linear(heads * size, config.width, bias=config.biases)
        self.q_norm, self.k_norm = (RMSNorm(size, config.norm_eps) if config.qk_norm == "rms" else None for _ in range(2))

    def forward(self, x_BTC: Tensor, reading: Reading, past: LayerCache | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns [B, T, C], and the keys and values to keep: of a window, no more than it can still need."""
        heads, groups, size = self.config.heads, self.config.kv_heads, self.config.head_dim
        batch, length, _ = x_BTC.shape
        qkv = self.qkv(x_BTC).view(batch, length, heads + 2 * groups, size).transpose(1, 2)
        qk, v = qkv.split((heads + groups, groups), dim=1)  # splitting, unlike slicing, needs no zeros in the backward pass
        q, k = self._turn(qk, reading).split((heads, groups), dim=1)
        if past is not None:
            k, v = torch.cat((past.keys, k), dim=2), torch.cat((past.values, v), dim=2)
        mask = reading.mask(self.kind, k.shape[2], x_BTC.device)
        mixed = self._mix(q, k, v, mask, causal=reading.causal and mask is None and length > 1)
        if self.kind == "window" and reading.mask_BS is None:
            k, v = k[:, :, -self.config.window :], v[:, :, -self.config.window :]
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1)), (k, v)

    def attend_across(self, x_BTC: Tensor, kept: tuple[Tensor, Tensor], mask_BS: Tensor | None) -> Tensor:
        """Attention to the keys and values that :meth:`read` made of an encoder's output."""
        batch, length, _ = x_BTC.shape
        q = self.qkv(x_BTC).view(batch, length, self.config.heads, -1).transpose(1, 2)
        mask = None if mask_BS is None else mask_BS[:, None, None, :]
        return self.out(self._mix(q, *kept, mask, causal=False).transpose(1, 2).reshape(batch, length, -1))

    def read(self, memory_BSC: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, G, S, D] of an encoder's output."""
        assert self.kv is not None, "only attention across reads a memory"
        batch, length, _ = memory_BSC.shape
        kv = self.kv(memory_BSC).view(batch, length, 2 * self.config.kv_heads, -1).transpose(1, 2)
        keys, values = kv.split(self.config.kv_heads, dim=1)
        return keys, values

    def _turn(self, qk: Tensor, reading: Reading) -> Tensor:
        """Queries and keys together [B, H + G, T, D] with their norms and rotation."""
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split((self.config.heads, self.config.kv_heads), dim=1)
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
        if reading.rotary is not None and self.kind != "nope":
            qk = rotate(qk, *reading.rotary)
            if self.config.qk_norm == "l2":
                qk = qk * torch.rsqrt(qk.square().mean(-1, keepdim=True) + self.config.norm_eps)
        if self.kind == "nope" and self.config.temperature is not None:
            floor, scale = self.config.temperature
            place = torch.arange(reading.begin, reading.end, device=qk.device, dtype=torch.float32)
            warm = torch.log1p(torch.floor((place + 1) / floor)) * scale + 1
            qk = torch.cat((qk[:, : self.config.heads] * warm[:, None], qk[:, self.config.heads :]), dim=1)
        return qk

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
        if self.config.score_scale:  # SDPA divides by sqrt(D)
            q = q * (self.config.score_scale * self.config.head_dim**0.5)
        dropout = self.config.dropout if self.training else 0.0
        return fused_attention(q, k, v, mask, causal=causal, dropout=dropout)


class Block(nn.Module):
    """Attention to itself, in a decoder beside an encoder attention across, and feed-forward; norms before each (pre) or after (post)."""

    def __init__(self, config: ModelConfig, layer: int, *, across: bool) -> None:
        super().__init__()
        self.config = config
        self.attention_norm, self.attention = make_norm(config), Attention(config, layer)
        if across:
            self.across_norm, self.across = make_norm(config), Attention(config, layer, across=True)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = Experts(config) if config.routed(layer) else FeedForward(config, config.hidden)

    def forward(
        self, x: Tensor, reading: Reading, past: LayerCache | None = None, *,
        memory: Tensor | None = None, memory_mask: Tensor | None = None, routes: list[Tensor] | None = None,
    ) -> tuple[Tensor, LayerCache]:  # fmt: skip
        pre, kept = self.config.norm_place == "pre", past.across if past else None
        mixed, (keys, values) = self.attention(self.attention_norm(x) if pre else x, reading, past)
        x = self._add(x, mixed, self.attention_norm)
        if memory is not None or kept is not None:
            kept = kept or self.across.read(memory)
            mixed = self.across.attend_across(self.across_norm(x) if pre else x, kept, memory_mask)
            x = self._add(x, mixed, self.across_norm)
        inside = self.feed_forward_norm(x) if pre else x
        made = self.feed_forward(inside, routes) if isinstance(self.feed_forward, Experts) else self.feed_forward(inside)
        return self._add(x, made, self.feed_forward_norm), LayerCache(keys, values, kept)

    def _add(self, x: Tensor, made: Tensor, norm: nn.Module) -> Tensor:
        if self.config.dropout:
            made = F.dropout(made, self.config.dropout, self.training)
        return x + made if self.config.norm_place == "pre" else norm(x + made)
