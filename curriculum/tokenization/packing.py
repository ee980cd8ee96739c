"""A tokenized corpus: byte-level BPE, documents joined by an end token, packed into blocks, split by document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from curriculum.artifacts import DirectoryArtifact
from curriculum.corpora.deduplicate import leakage
from curriculum.corpora.splits import split_by_cluster
from curriculum.errors import DataError
from curriculum.tokenization.settings import TokenizationSettings
from curriculum.tokenization.training import END, train_tokenizer

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}
_BATCH = 64  # documents encoded at once


def pack(documents: Iterable[list[int]], end: int, block_size: int, limit: int) -> np.ndarray:
    """int32 [blocks, block_size + 1]: the ids of documents, end to end.

    The stream is ``end``, document, ``end``, document, ...; each block's last token is the next one's first, so that every
    token of the stream but the very first is predicted exactly once. At most ``limit`` tokens are predicted, and the tail that
    fills no block is dropped.
    """
    stream = [end]
    for ids in documents:
        if len(stream) > limit:
            break
        stream += [*ids, end]
    blocks = min(limit, len(stream) - 1) // block_size
    places = np.arange(blocks)[:, None] * block_size + np.arange(block_size + 1)[None, :]
    return np.asarray(stream, dtype=np.int32)[places]


def token_bytes(tokenizer: Tokenizer, end: int) -> np.ndarray:
    """int64 [vocabulary]: bytes of text behind each token. A byte-level token's string has a character a byte; ``end`` has none."""
    sizes = np.array([len(tokenizer.id_to_token(i) or "") for i in range(tokenizer.get_vocab_size())])
    sizes[end] = 0
    return sizes


def build_tokenized_corpus(
    documents: pd.DataFrame,
    settings: TokenizationSettings,
    out: Path,
    *,
    threshold: float | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> DirectoryArtifact:
    """Write ``tokenizer.json``, ``{train,validation,test}.safetensors`` (``blocks``) and ``meta.json`` under ``out``.

    The tokenizer is trained on the training split alone. ``meta.json`` counts, a split, blocks, predicted tokens, the bytes of
    text behind these tokens (what bits per byte divides by) and documents. ``threshold`` stands in for the settings'
    ``leakage_jaccard``.

    Raises:
        DataError: a split would hold no block.
    """
    threshold = settings.leakage_jaccard if threshold is None else threshold
    table = documents.sort_values(["digest", "doc_id"])  # a fixed shuffle: neighbours by name are alike
    texts = list(table["text"])
    splits = split_by_cluster(texts, SHARES, threshold)
    by_split = {name: [text for text, split in zip(texts, splits, strict=True) if split == name] for name in SHARES}
    tokenizer = train_tokenizer("bpe", by_split["train"], settings.vocab_size)
    tokenizer.save(str(out / "tokenizer.json"))
    progress(f"tokenizer of {tokenizer.get_vocab_size()} entries trained on {len(by_split['train'])} documents")
    meta = {
        "vocab_size": tokenizer.get_vocab_size(), "block_size": settings.block_size, "end": tokenizer.token_to_id(END),
        "splits": {name: _write_split(name, by_split[name], tokenizer, settings, out) for name in SHARES},
    }
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    leaked = leakage(by_split, threshold)
    progress(f"{meta['splits']['train']['tokens']:,} training tokens, {leaked} documents on two sides")
    return DirectoryArtifact(out, {**meta, "leaked_documents": leaked})


def _write_split(name: str, texts: list[str], tokenizer: Tokenizer, settings: TokenizationSettings, out: Path) -> dict[str, int]:
    limit = settings.train_tokens if name == "train" else settings.held_out_tokens
    end = tokenizer.token_to_id(END)
    blocks = pack(_encoded(tokenizer, texts), end, settings.block_size, limit)
    if not len(blocks):
        raise DataError(f"the {name} split holds less than one block of {settings.block_size} tokens; add text to the corpus")
    save_file({"blocks": torch.from_numpy(blocks)}, out / f"{name}.safetensors")
    inputs, predicted = blocks[:, :-1], blocks[:, 1:]
    size = int(token_bytes(tokenizer, end)[predicted].sum())
    begun = int((inputs == end).sum())  # an end token that something follows opens a document
    return {"blocks": len(blocks), "tokens": int(predicted.size), "bytes": size, "documents": begun}


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> Iterable[list[int]]:
    for start in range(0, len(texts), _BATCH):
        yield from (e.ids for e in tokenizer.encode_batch(texts[start : start + _BATCH], add_special_tokens=False))


class TokenBlocks:
    """The packed blocks of one split of a tokenized corpus.

    ``tokens`` are predicted by its blocks and stand for ``bytes`` bytes of text in ``documents`` documents; ``end`` is the id
    that parts documents.

    Raises:
        DataError: the folder is no tokenized corpus, or has no such split.
    """

    def __init__(self, folder: Path, split: str = "train") -> None:
        meta = _meta(folder)
        if split not in meta["splits"]:
            raise DataError(f"{folder} has no split '{split}'; it has {', '.join(meta['splits'])}")
        self.folder, self.split = Path(folder), split
        self.bytes: int = meta["splits"][split]["bytes"]
        self.tokens: int = meta["splits"][split]["tokens"]
        self.documents: int = meta["splits"][split]["documents"]
        self.vocab_size: int = meta["vocab_size"]
        self.block_size: int = meta["block_size"]
        self.end: int = meta["end"]
        self.tokenizer_path = self.folder / "tokenizer.json"

    @classmethod
    def load(cls, folder: Path) -> dict[str, TokenBlocks]:
        """Every split by name; no tokens are read yet."""
        return {split: cls(folder, split) for split in _meta(folder)["splits"]}

    @cached_property
    def blocks(self) -> torch.Tensor:
        """int64 [n, block_size + 1], read at first use: inputs are ``[:, :-1]``, targets ``[:, 1:]``."""
        return load_file(self.folder / f"{self.split}.safetensors")["blocks"].long()

    def __len__(self) -> int:
        return self.tokens // self.block_size

    def tokenizer(self) -> Tokenizer:
        """The tokenizer the corpus was made with; end tokens in text stay text."""
        tokenizer = Tokenizer.from_file(str(self.tokenizer_path))
        tokenizer.encode_special_tokens = True  # not kept in the file
        return tokenizer


def _meta(folder: Path) -> dict[str, Any]:
    path = Path(folder) / "meta.json"
    if not path.exists():
        raise DataError(f"{folder} is no tokenized corpus (it has no meta.json); materialise tokenized_corpus")
    return json.loads(path.read_text(encoding="utf-8"))
