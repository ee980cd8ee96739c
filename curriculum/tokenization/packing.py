"""A tokenized corpus: byte-level BPE, documents joined by an end token, packed into blocks, split by document."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from curriculum.artifacts import DirectoryArtifact
from curriculum.corpora.deduplicate import clusters
from curriculum.corpora.documents import split_of
from curriculum.errors import DataError
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.tokenization.training import END, train_tokenizer

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}


def split_documents(texts: list[str], threshold: float) -> list[str]:
    """The split of each text. Near-duplicates share the hash of their cluster's first text, so they share a split."""
    first = clusters(texts, threshold)
    return [split_of(texts[i], SHARES) for i in first]


def leaked_documents(texts: list[str], splits: list[str], threshold: float) -> int:
    """How many held-out documents have an exact or near-duplicate in another split: 0 for a sound corpus."""
    first = clusters(texts, threshold)
    sides: dict[int, set[str]] = {}
    for cluster, split in zip(first, splits, strict=True):
        sides.setdefault(cluster, set()).add(split)
    return sum(len(sides[c]) > 1 and split != "train" for c, split in zip(first, splits, strict=True))


def pack(token_ids: list[list[int]], end: int, block_size: int, limit: int) -> np.ndarray:
    """int32 [blocks, block_size + 1]: documents joined by ``end``; each block's last token is the next one's first.

    So every token but the very first is predicted exactly once. The unfilled tail is dropped.
    """
    stream = np.fromiter((t for ids in token_ids for t in [*ids, end]), dtype=np.int32)[: limit + 1]
    blocks = max(0, (len(stream) - 1) // block_size)
    starts = np.arange(blocks)[:, None] * block_size
    return stream[starts + np.arange(block_size + 1)[None, :]] if blocks else np.empty((0, block_size + 1), np.int32)


def build_tokenized_corpus(
    documents: pd.DataFrame, settings: TokenizationSettings, out: Path, *, threshold: float, progress: Callable[[str], None]
) -> DirectoryArtifact:
    """Write ``tokenizer.json``, ``{split}.safetensors`` (``blocks``) and ``meta.json`` under ``out``.

    The tokenizer is trained on the training split alone. ``meta.json`` counts the bytes of text behind each split's
    predicted tokens, which bits per byte divides by.

    Raises:
        DataError: a split would hold no block.
    """
    texts = list(documents["text"])
    splits = split_documents(texts, threshold)
    order = np.argsort(documents["digest"].to_numpy())  # a fixed shuffle: neighbours in the table are alike
    train = [texts[i] for i in order if splits[i] == "train"]
    tokenizer = train_tokenizer("bpe", train, settings.vocab_size)
    end = tokenizer.token_to_id(END)
    tokenizer.save(str(out / "tokenizer.json"))
    progress(f"tokenizer of {tokenizer.get_vocab_size()} entries trained on {len(train)} documents")
    meta: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "block_size": settings.block_size, "end": end, "splits": {}}
    for split in SHARES:
        limit = settings.train_tokens if split == "train" else settings.held_out_tokens
        chosen = [texts[i] for i in order if splits[i] == split]
        blocks = pack(_encode(tokenizer, chosen, limit), end, settings.block_size, limit)
        if not len(blocks):
            raise DataError(f"the {split} split holds less than one block of {settings.block_size} tokens; add text to the corpus")
        save_file({"blocks": torch.from_numpy(blocks)}, out / f"{split}.safetensors")
        meta["splits"][split] = {
            "blocks": len(blocks), "tokens": int(blocks[:, 1:].size), "bytes": _bytes(tokenizer, blocks, end), "documents": len(chosen)
        }
    (out / "meta.json").write_text(json.dumps(meta, indent=1))
    leaked = leaked_documents(texts, splits, threshold)
    facts = {"vocab_size": meta["vocab_size"], "block_size": settings.block_size, "leaked_documents": leaked, "splits": meta["splits"]}
    return DirectoryArtifact(out, facts)


def _encode(tokenizer: Tokenizer, texts: list[str], limit: int) -> list[list[int]]:
    taken, total = [], 0
    for start in range(0, len(texts), 64):
        if total > limit:
            break
        batch = [e.ids for e in tokenizer.encode_batch(texts[start : start + 64], add_special_tokens=False)]
        taken += batch
        total += sum(len(ids) + 1 for ids in batch)
    return taken


def _bytes(tokenizer: Tokenizer, blocks: np.ndarray, end: int) -> int:
    """UTF-8 bytes of the predicted tokens. In byte-level BPE each token's string has one character a byte."""
    size = np.array([len(tokenizer.id_to_token(i) or "") for i in range(tokenizer.get_vocab_size())])
    size[end] = 0
    return int(size[blocks[:, 1:]].sum())


class TokenBlocks:
    """The packed blocks of one split. ``blocks`` is int64 [n, block_size + 1]."""

    def __init__(self, folder: Path, split: str) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        self.blocks = load_file(folder / f"{split}.safetensors")["blocks"].long()
        self.bytes: int = meta["splits"][split]["bytes"]
        self.tokens: int = meta["splits"][split]["tokens"]
        self.vocab_size: int = meta["vocab_size"]
        self.block_size: int = meta["block_size"]
        self.tokenizer_path = folder / "tokenizer.json"
