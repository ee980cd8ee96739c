"""The same tokens through a model of transformers and through ours from its weights: whole or in pieces by the cache, padded or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from curriculum.transformer.model import Cache, Transformer

PIECES = (7, 1, 1, 1, 3)  # tokens of each step of a cached reading; the last one takes the rest


@dataclass(frozen=True)
class Batch:
    """Token ids [B, T], an encoder-decoder's source [B, S] too, and their masks: False at padding, None where there is none."""

    ids_BT: Tensor
    mask_BT: Tensor | None = None
    source_BS: Tensor | None = None
    source_mask_BS: Tensor | None = None

    def pieces(self) -> Iterator[tuple[Tensor, Tensor | None, int]]:
        """Ids and mask of each step, and where the step ends."""
        begin, length = 0, self.ids_BT.shape[1]
        for size in (*PIECES, length):
            end = min(begin + size, length)
            if end > begin:
                yield self.ids_BT[:, begin:end], None if self.mask_BT is None else self.mask_BT[:, begin:end], end
            begin = end


@dataclass(frozen=True)
class Condition:
    """How a batch is read: the side that is padded, and which of the two models reads in pieces with its cache."""

    name: str
    padded: str = ""
    ours_cached: bool = False
    theirs_cached: bool = False


CONDITIONS = (
    Condition("plain"),
    Condition("padded right", "right"),
    Condition("padded left", "left"),
    Condition("cached", ours_cached=True),
    Condition("both cached", ours_cached=True, theirs_cached=True),
    Condition("padded right, both cached", "right", ours_cached=True, theirs_cached=True),
    Condition("padded left, both cached", "left", ours_cached=True, theirs_cached=True),
)


def random_batch(vocabulary: int, *, length: int = 40, source: int = 0, padded: str = "", seed: int = 0) -> Batch:
    """Two rows of random ids (0 left out); with ``padded`` the second row has a quarter of padding on that side, in the source as well."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int) -> tuple[Tensor, Tensor | None]:
        ids = torch.randint(1, vocabulary, (2, size), generator=generator)
        return ids, padding(torch.tensor([size, size - size // 4]), size, padded) if padded else None

    return Batch(*draw(length), *(draw(source) if source else ()))


def padding(lengths_B: Tensor, width: int, side: str) -> Tensor:
    """bool [B, width], True at the tokens of rows of ``lengths_B`` tokens that are padded on ``side``, left or right."""
    places = torch.arange(width)[None]
    return places < lengths_B[:, None] if side == "right" else places >= width - lengths_B[:, None]


@torch.no_grad()
def largest_difference(theirs: nn.Module, ours: Transformer, batch: Batch, condition: Condition) -> float:
    """Largest absolute difference of the logits at the tokens; of an encoder, of the hidden states after every layer too."""
    if ours.config.stack == "encoder":
        return _encoder_difference(theirs, ours, batch)
    mine = _ours_in_pieces(ours, batch) if condition.ours_cached else _ours_whole(ours, batch)
    yours = _theirs_in_pieces(theirs, batch) if condition.theirs_cached else _theirs(theirs, batch, batch.ids_BT, batch.ids_BT.shape[1]).logits
    return _largest(mine - yours, batch.mask_BT)


def _largest(difference_BTX: Tensor, mask_BT: Tensor | None) -> float:
    return float((difference_BTX if mask_BT is None else difference_BTX[mask_BT]).abs().max())


def _encoder_difference(theirs: nn.Module, ours: Transformer, batch: Batch) -> float:
    """Over the embeddings, the output of every layer and, where there is a head, the logits; the second segment begins half-way."""
    segments = torch.zeros_like(batch.ids_BT)
    segments[:, segments.shape[1] // 2 :] = ours.config.segments - 1
    states: list[Tensor] = []
    blocks = ours.encoder.blocks
    hooks = [blocks[0].register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))]
    hooks += [block.register_forward_hook(lambda module, inputs, output: states.append(output[0])) for block in blocks]
    last = ours.encode(batch.ids_BT, batch.mask_BT, segments)
    for hook in hooks:
        hook.remove()
    mask = None if batch.mask_BT is None else batch.mask_BT.long()
    reference = theirs(input_ids=batch.ids_BT, attention_mask=mask, token_type_ids=segments, output_hidden_states=True)
    errors = [_largest(mine - yours, batch.mask_BT) for mine, yours in zip(states, reference.hidden_states, strict=True)]
    if ours.config.head_transform:
        errors.append(_largest(ours.logits(last) - reference.logits, batch.mask_BT))
    return float(torch.tensor(errors).max())  # unlike Python's max, keeps a NaN


def _ours_whole(ours: Transformer, batch: Batch) -> Tensor:
    return ours(batch.ids_BT, mask_BT=batch.mask_BT, source_BS=batch.source_BS, source_mask_BS=batch.source_mask_BS)


def _ours_in_pieces(ours: Transformer, batch: Batch) -> Tensor:
    memory = None if batch.source_BS is None else ours.encode(batch.source_BS, batch.source_mask_BS)
    cache: Cache | None = None
    out = []
    for ids, mask, _ in batch.pieces():
        logits, cache = ours.step(ids, cache, mask_BT=mask, memory=memory if cache is None else None, memory_mask=batch.source_mask_BS)
        out.append(logits)
    return torch.cat(out, dim=1)


def _theirs(theirs: nn.Module, batch: Batch, ids: Tensor, end: int, **kept: Any) -> Any:
    """transformers' output for ``ids``, the last of the first ``end`` tokens."""
    mask = None if batch.mask_BT is None else batch.mask_BT[:, :end].long()
    if batch.source_BS is None:
        return theirs(input_ids=ids, attention_mask=mask, **kept)
    source_mask = None if batch.source_mask_BS is None else batch.source_mask_BS.long()
    source = {} if "encoder_outputs" in kept else {"input_ids": batch.source_BS}
    return theirs(**source, attention_mask=source_mask, decoder_input_ids=ids, decoder_attention_mask=mask, **kept)


def _theirs_in_pieces(theirs: nn.Module, batch: Batch) -> Tensor:
    kept: dict[str, Any] = {"use_cache": True}
    out = []
    for ids, _, end in batch.pieces():
        made = _theirs(theirs, batch, ids, end, **kept)
        kept["past_key_values"] = made.past_key_values
        if batch.source_BS is not None:
            kept["encoder_outputs"] = (made.encoder_last_hidden_state,)
        out.append(made.logits)
    return torch.cat(out, dim=1)
