"""Scaled dot-product attention three ways: naive, tiled with an online softmax, and torch's fused kernel.

Shape suffixes: B batch, H query heads, G key-value heads, T queries, S keys, D head dimension. Masks are True where a query
may look. A query that may look nowhere gets zeros.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """bool [T, S]: query t sees keys up to its own position; the last query is aligned with the last key (KV cache)."""
    positions = torch.arange(queries, device=device)[:, None] + (keys - queries)
    return positions >= torch.arange(keys, device=device)[None, :]


def share_heads(k_BGSD: Tensor, heads: int) -> Tensor:
    """Key or value heads repeated for the query heads that share them (grouped-query attention, Ainslie et al., 2023)."""
    groups = k_BGSD.shape[1]
    return k_BGSD if groups == heads else k_BGSD.repeat_interleave(heads // groups, dim=1)


def naive_attention(q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D)) v with the whole [B, H, T, S] score matrix in memory (Vaswani et al., 2017).

    ``mask`` is bool, broadcastable to [B, H, T, S]. Returns [B, H, T, D].
    """
    k_BHSD, v_BHSD = (share_heads(x, q_BHTD.shape[1]) for x in (k_BGSD, v_BGSD))
    scores_BHTS = q_BHTD @ k_BHSD.transpose(-2, -1) / math.sqrt(q_BHTD.shape[-1])
    if mask is not None:
        scores_BHTS = scores_BHTS.masked_fill(~mask, -math.inf)
    weights_BHTS = scores_BHTS.softmax(dim=-1)
    if mask is not None:
        weights_BHTS = weights_BHTS.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return weights_BHTS @ v_BHSD


def fused_attention(
    q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, mask: Tensor | None = None, *, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """torch's scaled_dot_product_attention on the same inputs: flash on a GPU, its tiled kernel on a CPU. ``mask``: bool, or added."""
    shared = q_BHTD.shape[1] != k_BGSD.shape[1]
    return F.scaled_dot_product_attention(q_BHTD, k_BGSD, v_BGSD, mask, dropout, is_causal=causal, enable_gqa=shared)


def tiled_attention(
    q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, mask: Tensor | None = None, *, causal: bool = False, tile: int = 128
) -> Tensor:
    """Attention without the score matrix: tiles of it are made, used and dropped (Dao et al., 2022).

    The softmax is kept online (Milakov and Gimelshein, 2018): a running maximum and a running sum a query. The backward
    pass makes the tiles again from the saved log-sum-exp. Memory is O(T) instead of O(T S). ``causal`` is made a tile at a
    time; ``mask`` is given whole, so pass causality as the flag. Returns [B, H, T, D].
    """
    k_BHSD, v_BHSD = (share_heads(x, q_BHTD.shape[1]) for x in (k_BGSD, v_BGSD))
    return _Tiled.apply(q_BHTD, k_BHSD, v_BHSD, mask, causal, tile)


def _spans(length: int, tile: int) -> list[slice]:
    return [slice(i, min(i + tile, length)) for i in range(0, length, tile)]


def _tile_mask(mask: Tensor | None, causal: bool, rows: slice, columns: slice, queries: int, keys: int, device: Any) -> Tensor | None:
    """The part of the mask that one tile needs; None where every query of the tile sees every key of it."""
    part = None
    if mask is not None:
        part = mask.expand(*mask.shape[:-2], queries, keys)[..., rows, columns]
    if causal and rows.start + keys - queries < columns.stop - 1:
        seen = torch.arange(rows.start, rows.stop, device=device)[:, None] + (keys - queries)
        seen = seen >= torch.arange(columns.start, columns.stop, device=device)[None, :]
        part = seen if part is None else part & seen
    return part


def _skipped(causal: bool, rows: slice, columns: slice, queries: int, keys: int) -> bool:
    """Whether causality hides the whole tile."""
    return causal and rows.stop - 1 + keys - queries < columns.start


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, tile: int) -> Tensor:
        queries, keys, scale = q.shape[-2], k.shape[-2], 1 / math.sqrt(q.shape[-1])
        out, lse = torch.empty_like(q), q.new_empty(q.shape[:-1])
        for rows in _spans(queries, tile):
            q_tile = q[..., rows, :] * scale
            top = q_tile.new_full(q_tile.shape[:-1], -math.inf)
            total, mixed = torch.zeros_like(top), torch.zeros_like(q_tile)
            for columns in _spans(keys, tile):
                if _skipped(causal, rows, columns, queries, keys):
                    break
                scores = q_tile @ k[..., columns, :].transpose(-2, -1)
                seen = _tile_mask(mask, causal, rows, columns, queries, keys, q.device)
                if seen is not None:
                    scores = scores.masked_fill(~seen, -math.inf)
                new_top = torch.maximum(top, scores.amax(-1))
                safe = new_top.masked_fill(new_top == -math.inf, 0.0)
                weights, decay = torch.exp(scores - safe[..., None]), torch.exp(top - safe)
                total = total * decay + weights.sum(-1)
                mixed = mixed * decay[..., None] + weights @ v[..., columns, :]
                top = new_top
            out[..., rows, :] = mixed / total.clamp_min(torch.finfo(q.dtype).tiny)[..., None]
            lse[..., rows] = top.masked_fill(top == -math.inf, 0.0) + total.clamp_min(torch.finfo(q.dtype).tiny).log()
        ctx.save_for_backward(q, k, v, out, lse, mask)
        ctx.causal, ctx.tile = causal, tile
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (d_out,) = grads
        q, k, v, out, lse, mask = ctx.saved_tensors
        queries, keys, scale = q.shape[-2], k.shape[-2], 1 / math.sqrt(q.shape[-1])
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        delta = (d_out * out).sum(-1)  # the softmax Jacobian's row term: sum_s p_s dp_s
        for rows in _spans(queries, ctx.tile):
            for columns in _spans(keys, ctx.tile):
                if _skipped(ctx.causal, rows, columns, queries, keys):
                    break
                scores = q[..., rows, :] @ k[..., columns, :].transpose(-2, -1) * scale
                weights = torch.exp(scores - lse[..., rows, None])
                seen = _tile_mask(mask, ctx.causal, rows, columns, queries, keys, q.device)
                if seen is not None:
                    weights = weights.masked_fill(~seen, 0.0)
                d_weights = d_out[..., rows, :] @ v[..., columns, :].transpose(-2, -1)
                d_scores = weights * (d_weights - delta[..., rows, None]) * scale
                dv[..., columns, :] += weights.transpose(-2, -1) @ d_out[..., rows, :]
                dk[..., columns, :] += d_scores.transpose(-2, -1) @ q[..., rows, :]
                dq[..., rows, :] += d_scores @ k[..., columns, :]
        return dq, dk, dv, None, None, None
