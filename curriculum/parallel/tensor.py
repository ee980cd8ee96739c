"""Tensor parallelism from scratch: columns, then rows, one sum a sub-layer each way (Megatron-LM, Shoeybi et al., 2019).

Shape suffixes: B batch, T positions, C width, V vocabulary; a rank holds V / N rows of the embedding and of the output layer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from curriculum.transformer.model import Transformer


class _Copy(torch.autograd.Function):
    """The same input to every rank's slice: in the backward pass the slices' gradients are summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return summed(grad)


class _Reduce(torch.autograd.Function):
    """The sum of every rank's partial result, which all then hold: its gradient is every rank's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return summed(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def summed(x: Tensor) -> Tensor:
    """The sum of ``x`` over the ranks, in new memory."""
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def slice_fused(weight: Tensor, sizes: list[int], rank: int, ranks: int) -> Tensor:
    """Rows of a fused matrix that belong to ``rank``: its share of each of the parts, ``sizes`` rows long, joined again."""
    return torch.cat([part.chunk(ranks)[rank] for part in weight.split(sizes)])


class VocabularyEmbedding(nn.Module):
    """Rows ``first`` on of an embedding: ids of other ranks give zeros here, and the sum over ranks is the lookup."""

    def __init__(self, weight: Tensor, first: int) -> None:
        super().__init__()
        self.weight, self.first = nn.Parameter(weight), first

    def forward(self, ids_BT: Tensor) -> Tensor:
        """[B, T] to [B, T, C]."""
        own = ids_BT - self.first
        mine = (own >= 0) & (own < len(self.weight))
        rows = nn.functional.embedding(own.clamp(0, len(self.weight) - 1), self.weight)
        return _Reduce.apply(rows * mine[..., None])


def shard_model(model: Transformer, rank: int, ranks: int) -> set[str]:
    """Cut a decoder in place to what ``rank`` holds of it; returns the names of the parameters that were cut.

    Attention is cut by heads, feed-forward blocks by hidden units, the embedding and the output layer by vocabulary; norms are whole.

    Raises:
        ValueError: the shape does not divide by ``ranks``, or has biases, experts or a tied output layer.
    """
    config = model.config
    if config.biases or config.qkv_biases or config.experts or config.tied or config.stack != "decoder":
        raise ValueError("only a decoder without biases, experts and tied embeddings is cut here")
    for name, size in {"heads": config.heads, "kv_heads": config.kv_heads, "hidden": config.hidden, "vocab_size": config.vocab_size}.items():
        if size % ranks:
            raise ValueError(f"{name} {size} does not divide by {ranks} ranks")
    local = dataclasses.replace(config, heads=config.heads // ranks, kv_heads=config.kv_heads // ranks)
    with torch.no_grad():
        for block in model.decoder.blocks:
            attention, forward = block.attention, block.feed_forward
            attention.config, head = local, config.head_dim
            sizes = [config.heads * head, config.kv_heads * head, config.kv_heads * head]
            attention.qkv.weight = nn.Parameter(slice_fused(attention.qkv.weight, sizes, rank, ranks))
            attention.out.weight = nn.Parameter(attention.out.weight.chunk(ranks, dim=1)[rank].clone())
            parts = 2 if config.gated else 1
            forward.up.weight = nn.Parameter(slice_fused(forward.up.weight, parts * [config.hidden], rank, ranks))
            forward.down.weight = nn.Parameter(forward.down.weight.chunk(ranks, dim=1)[rank].clone())
            for part in (attention, forward):
                part.register_forward_pre_hook(lambda _, given: (_Copy.apply(given[0]), *given[1:]))
                part.register_forward_hook(_sum_output)
        rows = config.vocab_size // ranks
        model.embedding = VocabularyEmbedding(model.embedding.weight.chunk(ranks)[rank].clone(), rank * rows)
        model.output.weight = nn.Parameter(model.output.weight.chunk(ranks)[rank].clone())
    return {name for name, _ in model.named_parameters() if "norm" not in name}


def _sum_output(module: nn.Module, given: Any, made: Any) -> Any:
    return (_Reduce.apply(made[0]), *made[1:]) if isinstance(made, tuple) else _Reduce.apply(made)


def local_logits(model: Transformer, ids_BT: Tensor) -> Tensor:
    """The logits of this rank's part of the vocabulary, [B, T, V / N]."""
    return model.logits(_Copy.apply(model.hidden(ids_BT)))


def parallel_cross_entropy(logits_BTV: Tensor, targets_BT: Tensor, first: int) -> Tensor:
    """Mean cross-entropy from a rank's columns ``first`` on: the ranks exchange three numbers a position, not the logits."""
    largest = logits_BTV.detach().amax(-1)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    shifted = logits_BTV - largest[..., None]
    total = _Reduce.apply(shifted.exp().sum(-1))
    own = targets_BT - first
    mine = (own >= 0) & (own < logits_BTV.shape[-1])
    wanted = shifted.gather(-1, own.clamp(0, logits_BTV.shape[-1] - 1)[..., None])[..., 0]
    return (total.log() - _Reduce.apply(wanted * mine)).mean()


def gather_logits(logits_BTV: Tensor, ranks: int) -> Tensor:
    """Every rank's columns side by side, [B, T, V]."""
    parts = [torch.empty_like(logits_BTV) for _ in range(ranks)]
    dist.all_gather(parts, logits_BTV.detach().contiguous())
    return torch.cat(parts, dim=-1)
