"""Text of a domain in two sides, near-duplicates on one of them, and the proof that what is measured was not trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from curriculum.corpora.documents import text_digest
from curriculum.corpora.splits import split_by_cluster
from curriculum.errors import DataError

SHINGLE_WORDS = 13  # what GPT-3's authors called an overlap: 13 words in a row (Brown et al., 2020, appendix C)
_SHARED = 0.05  # of a test text's runs of words that may stand in the training text; one with more is dropped
_SHARES = {"train": 0.8, "test": 0.2}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Sides:
    """Texts that are trained on and texts that are measured on. ``dropped``: how many of the latter shared too much with the former."""

    train: list[str]
    test: list[str]
    dropped: int = 0


def sides_of(documents: pd.DataFrame, *, near_duplicate: float) -> Sides:
    """The sides of ``documents``: by their column ``split`` where they have one, else by near-duplicate cluster; the order is by hash.

    ``near_duplicate`` is the Jaccard similarity from which two documents are kept together. Documents less alike can still share whole
    paragraphs: a test text of which more than a twentieth of the runs of 13 words stand in the training text is dropped.

    Raises:
        DataError: a side is empty, or a text stands on both.
    """
    texts = list(documents["text"])
    split = list(documents["split"]) if "split" in documents else split_by_cluster(texts, _SHARES, near_duplicate)
    order = sorted(range(len(texts)), key=lambda i: text_digest(texts[i]))
    sides = Sides(*([texts[i] for i in order if split[i] == side] for side in _SHARES))
    refuse_repeats(sides.train, sides.test)
    clean = without_overlap(sides.train, sides.test)
    for name, side in zip(_SHARES, (sides.train, clean), strict=True):
        if not side:
            raise DataError(f"a domain of {len(texts)} documents has none for its {name} side; give its source more files")
    return Sides(sides.train, clean, len(sides.test) - len(clean))


def refuse_repeats(train: Iterable[str], test: Iterable[str]) -> None:
    """Refuse a test text that stands among the training texts, whatever its case, punctuation and spacing.

    Raises:
        DataError: there is one; its beginning is in the message.
    """
    seen = {" ".join(_words(text)) for text in train}
    for text in test:
        if " ".join(_words(text)) in seen:
            raise DataError(f"the text {text[:60]!r} is to be measured and stands in the training text too; keep it on one side")


def without_overlap(train: Iterable[str], test: Iterable[str]) -> list[str]:
    """The texts of ``test`` of which at most a twentieth of the runs of 13 words stand in ``train``."""
    known = _all_shingles(train)
    return [text for text in test if len((found := _shingles(text)) & known) <= _SHARED * len(found)]


def overlap(train: Iterable[str], test: Sequence[str]) -> float:
    """The share of the runs of 13 words of ``test`` that stand in ``train``; a shorter text is one run as a whole."""
    known = _all_shingles(train)
    found = [shingle for text in test for shingle in _shingles(text)]
    return sum(shingle in known for shingle in found) / len(found) if found else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _all_shingles(texts: Iterable[str]) -> set[tuple[str, ...]]:
    return set().union(*map(_shingles, texts))


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}
