"""One seed of the language model: trained at one length, then read at several under every method, on the same tokens each time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from curriculum.artifacts import DirectoryArtifact
from curriculum.errors import DataError
from curriculum.long_context.scaling import METHODS, change_at_factor_one, rescaled
from curriculum.long_context.settings import LongContextSettings
from curriculum.storage import digest_of
from curriculum.tokenization.packing import TokenBlocks
from curriculum.transformer.ablation_cells import recut
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer
from curriculum.transformer.objectives import NextToken, token_nats
from curriculum.transformer.training import train_config
from curriculum.transformer.vocabulary_study import documents_of, pack_at

QUARTERS = 4  # a sliding window moves on by this part of the training length


class Text(NamedTuple):
    """``train`` [blocks, length + 1], and ``stream`` [tokens] of held-out text in the order it was written in."""

    vocab_size: int
    train: Tensor
    stream: Tensor

    def digest(self) -> str:
        return digest_of([self.vocab_size, int(self.train.sum()), list(self.train.shape), digest_of(self.stream.tolist())])


def read_text(corpus: DirectoryArtifact, settings: LongContextSettings) -> Text:
    """The corpus under a tokenizer of the study's size: its training split in blocks of the training length, its test split as one stream.

    Raises:
        DataError: the test split is too short for two windows.
    """
    texts = [documents_of(TokenBlocks(corpus.path, split)) for split in ("train", "test")]
    packed = pack_at(settings.vocab_size, *texts, context_bytes=settings.length)
    stream = torch.cat([packed.test[:, :-1].flatten(), packed.test[-1, -1:]])
    if len(stream) <= settings.length * (settings.stretch + 1):
        raise DataError(
            f"{corpus.path} holds fewer than two test windows of {settings.length * settings.stretch} tokens; raise "
            "tokenization.held_out_tokens, or lower long_context.length or long_context.stretch"
        )
    return Text(packed.vocab_size, recut(packed.train, settings.length), stream)


def targets(stream: Tensor, settings: LongContextSettings) -> list[int]:
    """Where each scored stretch of ``length`` tokens begins: ``stretch`` - 1 lengths of text lie before it, and none is scored twice."""
    length = settings.length
    starts = range((settings.stretch - 1) * length, len(stream) - length, length)
    chosen = np.linspace(0, len(starts) - 1, min(settings.windows, len(starts))).round().astype(int)
    return [starts[int(i)] for i in chosen]


def windows(stream: Tensor, starts: list[int], times: int, length: int) -> Tensor:
    """int64 [windows, times * length + 1]: each ends where the stretch that is scored ends."""
    return torch.stack([stream[start - (times - 1) * length : start + length + 1] for start in starts])


@torch.no_grad()
def last_nats(model: Transformer, windows_BL: Tensor, scored: int) -> np.ndarray:
    """Mean nats of the last ``scored`` tokens of each window: [windows]."""
    parts = [token_nats(model, part).view(len(part.ids_BT), -1)[:, -scored:] for part in NextToken().batch(windows_BL).split(16)]
    return torch.cat(parts).double().mean(1).numpy()


def sliding_nats(model: Transformer, stream: Tensor, starts: list[int], length: int) -> np.ndarray:
    """The same tokens by a window that is never longer than in training: each has three quarters of one before it, or more. [windows]"""
    step = length // QUARTERS
    parts = [last_nats(model, windows(stream, [start - length + end for start in starts], 1, length), step) for end in range(step, length + 1, step)]
    return np.mean(parts, axis=0)


def train_language_model(
    text: Text, settings: LongContextSettings, seed: int, folder: Path, progress: Callable[[str], None]
) -> Transformer:
    """A decoder with rotary positions; a killed training goes on from ``folder``."""
    config = ModelConfig(text.vocab_size, settings.layers, settings.width, settings.heads, settings.heads, settings.hidden, settings.rope_theta)

    def said(line: str) -> None:
        progress(f"text, seed {seed}: {line}")

    run = train_config(config, text.train, settings, seed=seed, checkpoints=folder, progress=said)
    shutil.rmtree(folder, ignore_errors=True)
    return run.model.eval()


def perplexity_cell(
    text: Text, settings: LongContextSettings, seed: int, folder: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Train under one seed, and score: what comes back is JSON.

    ``sliding``: nats a window within the training length. ``long``: by method and times, read at that many training lengths.
    ``short``: by method and times, one training length under the factor of that many.
    """
    model = train_language_model(text, settings, seed, folder, progress)
    starts, length = targets(text.stream, settings), settings.length
    block = windows(text.stream, starts, 1, length)
    found: dict[str, Any] = {
        "sliding": sliding_nats(model, text.stream, starts, length).tolist(), "block": last_nats(model, block, length).tolist(),
        "change_at_factor_one": change_at_factor_one(model, block[:4, :-1]), "long": {}, "short": {},
    }  # fmt: skip
    for name, method in METHODS.items():
        for times in range(2, settings.stretch + 1):
            other = rescaled(model, method.scaling(times, length))
            found["long"][f"{name} {times}"] = last_nats(other, windows(text.stream, starts, times, length), length).tolist()
            if method.kind:
                found["short"][f"{name} {times}"] = last_nats(other, block, length).tolist()
    return found
