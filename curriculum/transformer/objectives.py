"""What a Transformer is asked while it trains: the next token, masked tokens, or removed spans.

An objective makes a batch of blocks of text. What it draws is a function of seed and step alone, so that resuming is exact, and it
asks the same number of tokens of every block, so that the mean over micro-batches is the mean over their tokens.

Shape suffixes: B blocks, L tokens of a block with the one before it, T what is read and asked, S the source of an encoder-decoder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curriculum.transformer.model import Transformer


class Batch(NamedTuple):
    """``ids_BT`` are read (of an encoder-decoder: by the decoder), ``targets_BT`` asked for where ``asked_BT`` is True (None: everywhere)."""

    ids_BT: Tensor
    targets_BT: Tensor
    asked_BT: Tensor | None = None
    source_BS: Tensor | None = None

    def split(self, size: int) -> list[Batch]:
        """Batches of ``size`` blocks, the last perhaps smaller."""
        starts = range(0, len(self.ids_BT), size)
        return [Batch(*(None if part is None else part[start : start + size] for part in self)) for start in starts]

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(None if part is None else part.to(device) for part in self))


class Objective(Protocol):
    """A frozen dataclass: its fields are part of what a checkpoint belongs to."""

    def batch(self, blocks_BL: Tensor, seed: int, step: int) -> Batch:
        """What the model reads and is asked of ``blocks_BL`` at ``step``."""
        ...

    def held_out(self) -> Objective:
        """The same without what makes a figure flatter: targets left visible, and tokens that are no text."""
        ...


@dataclass(frozen=True)
class NextToken:
    """Each token after the first of a block, from those before it."""

    def batch(self, blocks_BL: Tensor, seed: int = 0, step: int = 0) -> Batch:
        return Batch(blocks_BL[:, :-1], blocks_BL[:, 1:])

    def held_out(self) -> NextToken:
        return self


@dataclass(frozen=True)
class MaskedToken:
    """A share ``rate`` of the tokens from all the others (Devlin et al., 2019).

    Of the chosen ones the share ``masked`` is replaced by ``mask_id``, ``random`` by any of the ``vocab_size`` tokens, and the rest
    stays as it is. A block's first token is left out: the same tokens are read as the other objectives ask for.
    """

    vocab_size: int
    mask_id: int
    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1

    def batch(self, blocks_BL: Tensor, seed: int, step: int) -> Batch:
        rng, text = _rng(seed, step), blocks_BL[:, 1:]
        chosen = torch.from_numpy(rng.random(text.shape).argsort(axis=1) < count_of(text.shape[1], self.rate)).to(text.device)
        fate = torch.from_numpy(rng.random(text.shape)).to(text.device)
        other = torch.from_numpy(rng.integers(self.vocab_size, size=text.shape)).to(text.device)
        ids = torch.where(chosen & (fate < self.masked), self.mask_id, text)
        ids = torch.where(chosen & (fate >= self.masked) & (fate < self.masked + self.random), other, ids)
        return Batch(ids, text, chosen)

    def held_out(self) -> MaskedToken:
        return replace(self, masked=1.0, random=0.0)


@dataclass(frozen=True)
class SpanCorruption:
    """Removed spans of ``mean_span`` tokens on average, ``rate`` of the text, written out in order (Raffel et al., 2020, 3.1.4).

    The source has a sentinel in place of each span; the target has that sentinel and the span's tokens, and after the last span one
    sentinel more. The first sentinel is where the decoder starts and is not asked for. As in T5's code the number of tokens and
    of spans is fixed by the length; there every block ends with a span, here it may end with text. ``first_sentinel`` and those
    after it are ids beyond the text's; ``ask_sentinels``: whether they count in the loss.
    """

    first_sentinel: int
    rate: float = 0.15
    mean_span: float = 3.0
    ask_sentinels: bool = True

    def batch(self, blocks_BL: Tensor, seed: int, step: int) -> Batch:
        rng, text = _rng(seed, step), blocks_BL[:, 1:].cpu().numpy()
        pairs = [self._corrupt(row, rng) for row in text]
        source, target = (torch.from_numpy(np.stack(part)).to(blocks_BL.device) for part in zip(*pairs, strict=True))
        asked = None if self.ask_sentinels else target[:, 1:] < self.first_sentinel
        return Batch(target[:, :-1], target[:, 1:], asked, source)

    def held_out(self) -> SpanCorruption:
        return replace(self, ask_sentinels=False)

    def counts(self, length: int) -> tuple[int, int]:
        """How many tokens of a text of ``length`` are removed, and in how many spans."""
        removed = count_of(length, self.rate)
        return removed, min(max(round(removed / self.mean_span), 1), removed, length - removed + 1)

    def _corrupt(self, text_T: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        removed, spans = self.counts(len(text_T))
        kept = _pieces(len(text_T) - removed + 2, spans + 1, rng)
        kept[[0, -1]] -= 1  # text between spans has a token at least, before the first and after the last it may have none
        lengths = np.stack((kept[:-1], _pieces(removed, spans, rng)), axis=1).ravel()
        pieces, sentinels = np.split(text_T, lengths.cumsum()), self.first_sentinel + np.arange(spans + 1)[:, None]
        source = [part for pair in zip(pieces[0::2], sentinels, strict=True) for part in pair][:-1]
        target = [part for pair in zip(sentinels, pieces[1::2], strict=False) for part in pair]
        return np.concatenate(source), np.concatenate((*target, sentinels[-1]))


def count_of(length: int, rate: float) -> int:
    """Tokens that ``rate`` of ``length`` is: at least one, and never all."""
    return min(max(round(length * rate), 1), length - 1)


def _rng(seed: int, step: int) -> np.random.Generator:
    return np.random.default_rng([1, seed, step])  # the 1 keeps the stream apart from the one that orders the blocks


def _pieces(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """``total`` cut into ``parts`` lengths of at least one, every cut as likely."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], cuts, [total])))


def token_nats(model: Transformer, batch: Batch, routes: list[Tensor] | None = None, *, among: int | None = None) -> Tensor:
    """Cross-entropy in nats of every asked token, block after block: [asked]. The output layer runs on these alone.

    ``among``: given that the token is one of the first ``among`` of the table, so that a model pays nothing for masks and sentinels.
    """
    x_BTC, asked = model.hidden(batch.ids_BT, source_BS=batch.source_BS, routes=routes), batch.asked_BT
    x_NC, targets_N = (x_BTC.flatten(0, 1), batch.targets_BT.flatten()) if asked is None else (x_BTC[asked], batch.targets_BT[asked])
    return F.cross_entropy(model.logits(x_NC)[:, :among], targets_N, reduction="none")


def mean_nats(model: Transformer, batch: Batch, routes: list[Tensor] | None = None) -> Tensor:
    """The mean of :func:`token_nats`, to train on: the logits of the whole batch are never there at once."""
    x_BTC, targets = model.hidden(batch.ids_BT, source_BS=batch.source_BS, routes=routes), batch.targets_BT
    if batch.asked_BT is not None:
        x_BTC, targets = x_BTC[batch.asked_BT][None], targets[batch.asked_BT][None]
    return model.loss(x_BTC, targets)


@torch.no_grad()
def block_nats(
    model: Transformer, blocks_BL: Tensor, objective: Objective | None = None, *, seed: int = 0, size: int = 32, among: int | None = None
) -> np.ndarray:
    """Mean nats an asked token of each block, in evaluation mode: float64 [blocks]. ``seed`` says what is masked; default: next token.

    ``among``: see :func:`token_nats`.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    parts = (objective or NextToken()).batch(blocks_BL, seed, 0).split(size)
    nats = [token_nats(model, part.to(device), among=among).double().view(len(part.ids_BT), -1).mean(1).cpu() for part in parts]
    model.train(was_training)
    return torch.cat(nats).numpy()
