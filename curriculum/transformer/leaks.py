"""Probes of a model's masks: each changes tokens that a prediction must not depend on, and gives how far the logits moved.

A probe that ought to move the logits (:func:`two_sided`) is the control: without it a model that reads nothing would pass them all.
Shape suffixes: B blocks, L tokens of a block with the one before it, A asked tokens of a block, T and S what is read.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from curriculum.transformer.model import Transformer, leak_probe
from curriculum.transformer.objectives import Batch, Objective, SpanCorruption

LENGTH = 48  # tokens a probe reads
_JUNK = 8  # tokens of padding


def asked_places(objective: Objective, blocks_BL: Tensor, seed: int) -> Tensor:
    """Where in its block each asked token stands, int64 [B, A]: the objective is given the places themselves as text."""
    places_BL = torch.arange(blocks_BL.shape[1]).expand(blocks_BL.shape)
    if isinstance(objective, SpanCorruption):  # what it draws depends on lengths alone, so that another sentinel changes nothing
        objective = replace(objective, first_sentinel=blocks_BL.shape[1])
    batch = objective.held_out().batch(places_BL, seed, 0)
    return (batch.targets_BT if batch.asked_BT is None else batch.targets_BT[batch.asked_BT]).reshape(len(blocks_BL), -1)


@torch.no_grad()
def future_leak(model: Transformer, vocab_size: int, *, seed: int = 0) -> float:
    """Largest change of a decoder's logits when later tokens of its own change; an encoder-decoder keeps its source. 0 for a sound mask."""
    if model.config.stack == "decoder":
        return leak_probe(model, vocab_size, length=LENGTH, seed=seed)
    source_BS = _random(vocab_size, (2, LENGTH), seed + 1)
    return leak_probe(lambda ids_BT: model(ids_BT, source_BS=source_BS), vocab_size, length=LENGTH, seed=seed)


@torch.no_grad()
def target_leak(model: Transformer, objective: Objective, blocks_BL: Tensor, vocab_size: int, *, seed: int = 0) -> float:
    """Largest change of the logits that answer for a token when that token changes in the text. 0 where no answer is shown.

    An encoder answers for all of its asked tokens at once, so all of them change. A decoder may read an asked token afterwards: its
    tokens change from the middle one on, and the answers up to that one are compared.
    """
    objective, places_BA = objective.held_out(), asked_places(objective, blocks_BL, seed)
    first = 0 if model.config.stack == "encoder" else places_BA.shape[1] // 2
    changed_BL, moved = blocks_BL.clone(), torch.zeros_like(blocks_BL, dtype=torch.bool).scatter(1, places_BA[:, first:], True)
    shift = 1 + _random(vocab_size - 1, tuple(blocks_BL.shape), seed)
    changed_BL[moved] = ((blocks_BL + shift) % vocab_size)[moved]
    answered = slice(None) if model.config.stack == "encoder" else slice(first + 1)
    before, after = (_answers(model, objective.batch(blocks, seed, 0))[:, answered] for blocks in (blocks_BL, changed_BL))
    return float((before - after).abs().max())


@torch.no_grad()
def padding_leak(model: Transformer, vocab_size: int, *, seed: int = 0) -> float:
    """Largest change of the logits of a text when junk that the mask calls padding stands before (decoder) or after it (encoder)."""
    ids_BT, junk_BT = _random(vocab_size, (2, LENGTH), seed), _random(vocab_size, (2, _JUNK), seed + 1)
    mask_BT = torch.ones(2, LENGTH + _JUNK, dtype=torch.bool)
    if model.config.stack == "decoder":
        mask_BT[:, :_JUNK] = False
        padded = model(torch.cat((junk_BT, ids_BT), 1), mask_BT=mask_BT)[:, _JUNK:]
        return float((padded - model(ids_BT)).abs().max())
    mask_BT[:, LENGTH:] = False
    longer_BT = torch.cat((ids_BT, junk_BT), 1)
    if model.config.stack == "encoder":
        return float((model(longer_BT, mask_BT=mask_BT)[:, :LENGTH] - model(ids_BT)).abs().max())
    padded = model(ids_BT, source_BS=longer_BT, source_mask_BS=mask_BT)
    return float((padded - model(ids_BT, source_BS=ids_BT)).abs().max())


@torch.no_grad()
def two_sided(model: Transformer, vocab_size: int, *, seed: int = 0) -> float:
    """How far the logits move with what must be read: later tokens (encoder), the source's last token (encoder-decoder).

    Raises:
        ValueError: a decoder-only model, which reads one way.
    """
    if model.config.stack == "decoder":
        raise ValueError("a decoder-only model reads one way: there is no other side to probe")
    if model.config.stack == "encoder":
        return leak_probe(model, vocab_size, length=LENGTH, seed=seed)
    ids_BT, source_BS = _random(vocab_size, (2, LENGTH), seed), _random(vocab_size, (2, LENGTH), seed + 1)
    other_BS = source_BS.clone()
    other_BS[:, -1] = (other_BS[:, -1] + 1) % vocab_size
    return float((model(ids_BT, source_BS=source_BS) - model(ids_BT, source_BS=other_BS)).abs().max())


def _answers(model: Transformer, batch: Batch) -> Tensor:
    """Logits at the asked tokens, [B, A, vocabulary]."""
    logits = model(batch.ids_BT, source_BS=batch.source_BS)
    return logits if batch.asked_BT is None else logits[batch.asked_BT].view(len(logits), -1, logits.shape[-1])


def _random(vocab_size: int, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))
