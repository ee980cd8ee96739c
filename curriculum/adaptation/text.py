"""Text as packed blocks of a model's own tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from curriculum.errors import DataError
from curriculum.tokenization.packing import pack


def token_blocks(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], block_size: int, *, limit: int | None = None) -> torch.Tensor:
    """int64 [blocks, block_size + 1]: documents joined by the end token; a block's last token is the next one's first.

    At most ``limit`` blocks, from the beginning; the unfilled tail is dropped.

    Raises:
        DataError: the text does not fill one block.
    """
    documents = (tokenizer.encode(text, add_special_tokens=False) for text in texts)
    blocks = pack(documents, tokenizer.eos_token_id, block_size, sys.maxsize if limit is None else limit * block_size)
    if not len(blocks):
        raise DataError(f"the text holds less than one block of {block_size} tokens; add text or lower adapter.block_size")
    return torch.from_numpy(blocks).long()


def read_general(uri: str, folder: Path) -> list[str]:
    """The texts of the general source: the study notes without their front matter, or a user's folder or file."""
    from curriculum.corpora.notes import load_notes
    from curriculum.corpora.readers import read_documents

    return list((load_notes if uri == "packaged:notes" else read_documents)(folder)["text"])
