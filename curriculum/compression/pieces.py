"""A context as pieces, sentences or words, each with its tokens; and the ones that a budget keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from curriculum.grounding.sentences import sentences

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Pieces:
    """The pieces of the passages of one context, in order: their texts, tokens [pieces] and passage [pieces].

    Joined by spaces, and passages by line ends, they are the context with its white space made single.
    """

    texts: list[str]
    tokens: np.ndarray
    passage: np.ndarray

    def joined(self, kept: np.ndarray) -> str:
        """The text of the pieces in ``kept`` [pieces] (bool)."""
        lines: dict[int, list[str]] = {}
        for place in np.flatnonzero(kept):
            lines.setdefault(int(self.passage[place]), []).append(self.texts[place])
        return "\n".join(" ".join(line) for line in lines.values())

    def kept(self, scores: np.ndarray, budget: float) -> np.ndarray:
        """Which pieces [pieces] (bool) are kept: the best scored first, each that still fits into ``budget`` tokens; of equals the earlier."""
        chosen, left = np.zeros(len(self.texts), dtype=bool), budget
        for place in np.argsort(-np.asarray(scores), kind="stable"):
            if self.tokens[place] <= left:
                chosen[place] = True
                left -= self.tokens[place]
        return chosen


def sentence_pieces(passages: Sequence[str], count: Callable[[str], int]) -> Pieces:
    """Sentences as pieces; ``count`` gives the tokens of a text."""
    return _pieces([sentences(plain(text)) for text in passages], count)


def word_pieces(passages: Sequence[str], count: Callable[[str], int]) -> Pieces:
    """Words, as white space divides them, as pieces."""
    return _pieces([_WORD.findall(text) for text in passages], count)


def plain(text: str) -> str:
    """``text`` with its white space made single."""
    return " ".join(text.split())


def _pieces(parts: Sequence[Sequence[str]], count: Callable[[str], int]) -> Pieces:
    texts = [piece for part in parts for piece in part]
    passage = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    first = np.r_[True, passage[1:] != passage[:-1]] if len(texts) else passage
    tokens = np.array([count(text if begins else f" {text}") for text, begins in zip(texts, first, strict=True)], dtype=int)
    return Pieces(texts, tokens, passage)
