"""The tiled attention as Triton kernels, forward and backward: each tile lives on the chip of a GPU instead of in a tensor.

Triton comes with torch's builds for a GPU and is not needed without one. With TRITON_INTERPRET=1 in the environment before this
module is imported, Triton's interpreter runs the kernels on a CPU: slowly and without bfloat16, for tests. Matrices are contiguous
[count, size]; sums are float32 whatever the inputs are. After Dao (2023), "FlashAttention-2". Shape suffixes as in
:mod:`curriculum.transformer.attention`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

EXACT = tl.constexpr("ieee")  # float32 products as such, not as TF32; halves are multiplied as halves either way


@triton.jit
def _load(ptr, rows, count, dims, size):
    """Tile [rows, dims] of a matrix; zeros past its ends."""
    inside = (rows[:, None] < count) & (dims[None, :] < size)
    return tl.load(ptr + rows[:, None] * size + dims[None, :], mask=inside, other=0.0)


@triton.jit
def _store(ptr, tile, rows, count, dims, size):
    inside = (rows[:, None] < count) & (dims[None, :] < size)
    tl.store(ptr + rows[:, None] * size + dims[None, :], tile.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def _scores(q, k, scale, seen_ptr, rows, columns, queries, keys, CAUSAL: tl.constexpr, PADDED: tl.constexpr):
    """Scaled scores [rows, columns] of a tile, -inf where a query may not look; the last query is aligned with the last key."""
    seen = (rows[:, None] < queries) & (columns[None, :] < keys)
    if CAUSAL:
        seen = seen & (rows[:, None] + (keys - queries) >= columns[None, :])
    if PADDED:
        seen = seen & (tl.load(seen_ptr + columns, mask=columns < keys, other=0) != 0)[None, :]
    return tl.where(seen, tl.dot(q, tl.trans(k), input_precision=EXACT) * scale, float("-inf"))


@triton.jit
def _forward(
    q_ptr, k_ptr, v_ptr, seen_ptr, out_ptr, lse_ptr, scale, heads, shared, queries, keys, size,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program a tile of queries and head: keys and values stream past; a maximum and a sum a query are kept."""
    head = tl.program_id(1).to(tl.int64)  # of all heads of the batch
    rows, dims = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    q = _load(q_ptr + head * queries * size, rows, queries, dims, size)
    k_ptr += head // shared * keys * size
    v_ptr += head // shared * keys * size
    seen_ptr += head // heads * keys
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total, mixed = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS, D], tl.float32)
    end = keys
    if CAUSAL:  # the tiles after it are hidden from every query of this one
        end = tl.minimum(keys, (tl.program_id(0) + 1) * ROWS + keys - queries)
    for start in range(0, end, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k, v = _load(k_ptr, columns, keys, dims, size), _load(v_ptr, columns, keys, dims, size)
        scores = _scores(q, k, scale, seen_ptr, rows, columns, queries, keys, CAUSAL, PADDED)
        new_top = tl.maximum(top, tl.max(scores, 1))
        safe = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights, decay = tl.exp(scores - safe[:, None]), tl.exp(top - safe)
        total = total * decay + tl.sum(weights, 1)
        mixed = mixed * decay[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=EXACT)
        top = new_top
    nowhere = total == 0.0  # a query that may look nowhere gets zeros
    total = tl.where(nowhere, 1.0, total)
    _store(out_ptr + head * queries * size, mixed / total[:, None], rows, queries, dims, size)
    tl.store(lse_ptr + head * queries + rows, tl.where(nowhere, 0.0, top + tl.log(total)), mask=rows < queries)


@triton.jit
def _d_scores(q, k, v, d_out, lse, delta, scale, seen_ptr, rows, columns, queries, keys, CAUSAL: tl.constexpr, PADDED: tl.constexpr):
    """The weights of a tile, made again from the log-sum-exp, and the gradient of its scores."""
    scores = _scores(q, k, scale, seen_ptr, rows, columns, queries, keys, CAUSAL, PADDED)
    weights = tl.exp(scores - lse[:, None])
    d_weights = tl.dot(d_out, tl.trans(v), input_precision=EXACT)
    return weights, weights * (d_weights - delta[:, None]) * scale


@triton.jit
def _backward_queries(
    q_ptr, k_ptr, v_ptr, seen_ptr, d_out_ptr, lse_ptr, delta_ptr, dq_ptr, scale, heads, shared, queries, keys, size,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program a tile of queries and head, as in the forward pass."""
    head = tl.program_id(1).to(tl.int64)
    rows, dims = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    q = _load(q_ptr + head * queries * size, rows, queries, dims, size)
    d_out = _load(d_out_ptr + head * queries * size, rows, queries, dims, size)
    lse = tl.load(lse_ptr + head * queries + rows, mask=rows < queries, other=0.0)
    delta = tl.load(delta_ptr + head * queries + rows, mask=rows < queries, other=0.0)
    k_ptr += head // shared * keys * size
    v_ptr += head // shared * keys * size
    seen_ptr += head // heads * keys
    dq = tl.zeros([ROWS, D], tl.float32)
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, (tl.program_id(0) + 1) * ROWS + keys - queries)
    for start in range(0, end, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k, v = _load(k_ptr, columns, keys, dims, size), _load(v_ptr, columns, keys, dims, size)
        _, d_scores = _d_scores(q, k, v, d_out, lse, delta, scale, seen_ptr, rows, columns, queries, keys, CAUSAL, PADDED)
        dq += tl.dot(d_scores.to(k.dtype), k, input_precision=EXACT)
    _store(dq_ptr + head * queries * size, dq, rows, queries, dims, size)


@triton.jit
def _backward_keys(
    q_ptr, k_ptr, v_ptr, seen_ptr, d_out_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, scale, groups, shared, queries, keys, size,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program a tile of keys and key-value head: the queries of every head that shares it stream past."""
    group = tl.program_id(1).to(tl.int64)
    columns, dims = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, D)
    k = _load(k_ptr + group * keys * size, columns, keys, dims, size)
    v = _load(v_ptr + group * keys * size, columns, keys, dims, size)
    seen_ptr += group // groups * keys
    dk, dv = tl.zeros([COLUMNS, D], tl.float32), tl.zeros([COLUMNS, D], tl.float32)
    begin = 0
    if CAUSAL:  # the tiles before it see none of these keys
        begin = tl.maximum(0, tl.program_id(0) * COLUMNS - (keys - queries)) // ROWS * ROWS
    for member in range(0, shared):
        head = group * shared + member
        for start in range(begin, queries, ROWS):
            rows = start + tl.arange(0, ROWS)
            q = _load(q_ptr + head * queries * size, rows, queries, dims, size)
            d_out = _load(d_out_ptr + head * queries * size, rows, queries, dims, size)
            lse = tl.load(lse_ptr + head * queries + rows, mask=rows < queries, other=0.0)
            delta = tl.load(delta_ptr + head * queries + rows, mask=rows < queries, other=0.0)
            weights, d_scores = _d_scores(q, k, v, d_out, lse, delta, scale, seen_ptr, rows, columns, queries, keys, CAUSAL, PADDED)
            dv += tl.dot(tl.trans(weights).to(q.dtype), d_out, input_precision=EXACT)
            dk += tl.dot(tl.trans(d_scores).to(q.dtype), q, input_precision=EXACT)
    _store(dk_ptr + group * keys * size, dk, columns, keys, dims, size)
    _store(dv_ptr + group * keys * size, dv, columns, keys, dims, size)


class _Triton(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, causal: bool, tile: tuple[int, int]) -> Tensor:
        (batch, heads, queries, size), (groups, keys) = q.shape, k.shape[1:3]
        out, lse = torch.empty_like(q), torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
        ctx.sizes = (1 / math.sqrt(size), heads, heads // groups, queries, keys, size)
        ctx.choices = {
            "CAUSAL": causal, "PADDED": seen is not None, "D": max(16, triton.next_power_of_2(size)), "ROWS": tile[0], "COLUMNS": tile[1],
        }  # fmt: skip
        mask = out if seen is None else seen  # a pointer that is not read where nothing is padded
        _forward[(triton.cdiv(queries, tile[0]), batch * heads)](q, k, v, mask, out, lse, *ctx.sizes, **ctx.choices)
        ctx.save_for_backward(q, k, v, out, lse, mask)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, mask = ctx.saved_tensors
        d_out, (scale, heads, shared, *lengths) = grads[0].contiguous(), ctx.sizes
        delta = (d_out.float() * out.float()).sum(-1)  # the softmax Jacobian's row term: sum_s p_s dp_s
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        given = (q, k, v, mask, d_out, lse, delta)
        over_queries = (triton.cdiv(q.shape[2], ctx.choices["ROWS"]), q.shape[0] * heads)
        over_keys = (triton.cdiv(k.shape[2], ctx.choices["COLUMNS"]), k.shape[0] * k.shape[1])
        _backward_queries[over_queries](*given, dq, scale, heads, shared, *lengths, **ctx.choices)
        _backward_keys[over_keys](*given, dk, dv, scale, heads // shared, shared, *lengths, **ctx.choices)
        return dq, dk, dv, None, None, None


def triton_attention(
    q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, mask: Tensor | None = None, *, causal: bool = False, tile: tuple[int, int] | None = None
) -> Tensor:
    """Attention by kernels, with gradients; float16, bfloat16 or float32 in and out. Returns [B, H, T, D].

    ``mask``: bool [B, 1, 1, S], False at padding. ``tile``: queries and keys, each a power of 2 from 16 on; none: 64 each, of
    float32 32, which fit the chips of compute capability 8.0 and later.

    Raises:
        ValueError: the mask says more than which keys are padding, or the tile is none.
    """
    if mask is not None and (mask.dim() != 4 or mask.shape[1:3] != (1, 1)):
        raise ValueError(f"the kernels take causality as a flag and a mask of padded keys [B, 1, 1, S], not one of shape {tuple(mask.shape)}")
    tile = tile or ((32, 32) if q_BHTD.dtype == torch.float32 else (64, 64))
    if any(side < 16 or side & (side - 1) for side in tile):
        raise ValueError(f"the sides of a tile are powers of 2 from 16 on, not {tile}")
    seen = None if mask is None else mask[:, 0, 0].expand(len(q_BHTD), -1).to(torch.int8).contiguous()
    return _Triton.apply(q_BHTD.contiguous(), k_BGSD.contiguous(), v_BGSD.contiguous(), seen, causal, tile)
