"""Text as word ids: a vocabulary by count, and sentences that no window crosses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from curriculum.errors import DataError

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, an apostrophe inside kept."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Corpus:
    """Word ids [tokens] by falling count, and the text each stands in [tokens]; ``counts`` [V] are of these tokens."""

    words: tuple[str, ...]
    counts: np.ndarray
    ids: np.ndarray
    text_of: np.ndarray
    index: dict[str, int] = field(repr=False)

    @cached_property
    def sentences(self) -> list[list[str]]:
        """The same tokens as lists of words, a list a text: what gensim reads."""
        cuts = np.flatnonzero(np.diff(self.text_of)) + 1
        return [[self.words[i] for i in part] for part in np.split(self.ids, cuts)]


def cut_words(texts: Iterable[str], maximum: int) -> list[list[str]]:
    """The words of each text, until ``maximum`` words in all."""
    found, left = [], maximum
    for text in texts:
        words = words_of(text)[:left]
        found.append(words)
        left -= len(words)
        if left <= 0:
            break
    return found


def build_corpus(texts: list[list[str]], minimum_count: int, without: frozenset[str] = frozenset()) -> Corpus:
    """Ids of the words that stand ``minimum_count`` times or more. Rarer words and those in ``without`` leave the text: windows close up.

    Raises:
        DataError: fewer than two words are left.
    """
    counts = Counter(word for text in texts for word in text)
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = tuple(word for word, count in by_count if count >= minimum_count and word not in without)
    if len(words) < 2:
        raise DataError(f"the text has {len(words)} words that stand {minimum_count} times; give more text, or lower minimum_count")
    index = {word: number for number, word in enumerate(words)}
    kept = [[index[word] for word in text if word in index] for text in texts]
    ids = np.array([number for text in kept for number in text], dtype=np.int64)
    text_of = np.repeat(np.arange(len(kept)), [len(text) for text in kept])
    return Corpus(words, np.bincount(ids, minlength=len(words)), ids, text_of, index)
