"""FastText's words as bags of character n-grams (Bojanowski et al., 2017, arXiv 1607.04606), hashed as the reference does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

_FNV_OFFSET, _FNV_PRIME, _MASK = 2166136261, 16777619, 0xFFFFFFFF


def character_grams(word: str, minimum: int, maximum: int) -> list[str]:
    """Substrings of ``<word>`` of ``minimum`` to ``maximum`` characters, the short ones first; a mark alone is none."""
    marked = f"<{word}>"
    ends = {n: len(marked) - n + 1 for n in range(minimum, min(len(marked), maximum) + 1)}
    return [marked[i : i + n] for n, end in ends.items() for i in range(end) if n > 1 or 0 < i < end - 1]


def gram_hash(gram: str) -> int:
    """32-bit FNV-1a over the UTF-8 bytes, each widened as a signed byte: what the reference implementation does."""
    value = _FNV_OFFSET
    for byte in gram.encode("utf-8"):
        signed = byte if byte < 128 else byte | 0xFFFFFF00
        value = ((value ^ signed) * _FNV_PRIME) & _MASK
    return value


def gram_rows(word: str, minimum: int, maximum: int, buckets: int) -> list[int]:
    """The row of the n-gram table of each n-gram of ``word``."""
    return [gram_hash(gram) % buckets for gram in character_grams(word, minimum, maximum)]


@dataclass(frozen=True)
class Bags:
    """For each word the rows of one table that make it up: ``rows`` [total], those of word i at ``starts[i]:starts[i + 1]``."""

    rows: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of(cls, bags: Iterable[list[int]]) -> Bags:
        """From lists of rows."""
        lists = list(bags)
        starts = np.concatenate([[0], np.cumsum([len(bag) for bag in lists])])
        return cls(torch.tensor([row for bag in lists for row in bag], dtype=torch.int64), torch.from_numpy(starts))

    def take(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(rows [total], offsets [n], sizes [n]) of the bags of ``words`` [n]: the arguments of ``embedding_bag``."""
        starts = self.starts[words]
        sizes = self.starts[words + 1] - starts
        offsets = sizes.cumsum(0) - sizes
        inside = torch.arange(int(sizes.sum())) - offsets.repeat_interleave(sizes)
        return self.rows[starts.repeat_interleave(sizes) + inside], offsets, sizes


def compose(table_RD: torch.Tensor, bags: Bags, words: torch.Tensor) -> torch.Tensor:
    """Vectors [n, D] of ``words`` [n]: the mean of their rows, zero for an empty bag.

    The paper adds the rows up; the mean, as in both reference implementations, has the same direction.
    """
    rows, offsets, _ = bags.take(words)
    return torch.nn.functional.embedding_bag(rows, table_RD, offsets, mode="mean")


def word_bags(words: Iterable[str], minimum: int, maximum: int, buckets: int) -> Bags:
    """Bags of known words over one table of V + buckets rows: a word's own row, then its n-grams, shifted by V."""
    listed = list(words)
    shift = len(listed)
    return Bags.of([number, *(shift + row for row in gram_rows(word, minimum, maximum, buckets))] for number, word in enumerate(listed))


def unseen_bags(words: Iterable[str], known: int, minimum: int, maximum: int, buckets: int) -> Bags:
    """Bags of words without a row of their own over a table made for ``known`` words."""
    return Bags.of([known + row for row in gram_rows(word, minimum, maximum, buckets)] for word in words)
