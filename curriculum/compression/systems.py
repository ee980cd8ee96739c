"""Who decides which sentences or words of a context stay: scores of its pieces by position, by the question, and by surprise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curriculum.compression.pieces import Pieces, sentence_pieces, word_pieces
from curriculum.crossencoder.model import Pair
from curriculum.grounding.similarity import containment

# name -> whether it keeps sentences (else words)
SYSTEMS = {
    "lead": True, "random": True, "overlap": True, "dense": True, "cross_encoder": True, "stranger": True,
    "random_words": False, "surprise": False, "contrast": False,
}  # fmt: skip
TITLES = {
    "lead": "first sentences", "random": "sentences by chance", "overlap": "sentences that share words with the question",
    "dense": "sentences near the question", "cross_encoder": "sentences by the reranker", "stranger": "sentences near another question",
    "random_words": "words by chance", "surprise": "surprising words", "contrast": "words the question makes expected",
}  # fmt: skip
CONTROLS = {name: "random" if whole else "random_words" for name, whole in SYSTEMS.items() if not name.startswith(("random", "stranger"))}


class Encodes(Protocol):
    """A sentence encoder: unit vectors [texts, dimension] of questions and of passages."""

    def queries(self, texts: list[str]) -> np.ndarray: ...

    def passages(self, texts: list[str]) -> np.ndarray: ...


class Scores(Protocol):
    """A cross-encoder: logits [pairs]."""

    def score(self, pairs: Sequence[Pair]) -> np.ndarray: ...


class Surprises(Protocol):
    """Tokens of a text, and the surprise [words] of the words of passages after ``before``."""

    def count(self, text: str) -> int: ...

    def words(self, passages: Sequence[str], before: str = "") -> np.ndarray: ...


@dataclass(frozen=True)
class Judges:
    """The models that score pieces."""

    encoder: Encodes
    cross_encoder: Scores
    surprise: Surprises

    def score(self, question: str, stranger: str, passages: Sequence[str], seed: int) -> dict[str, tuple[Pieces, np.ndarray, float]]:
        """For every system its pieces of ``passages``, their scores [pieces], and the seconds they took. ``stranger`` is another question."""
        count, rng = self.surprise.count, np.random.default_rng(seed)
        parts, words = sentence_pieces(passages, count), word_pieces(passages, count)

        def near(asked: str) -> np.ndarray:
            return self.encoder.passages(parts.texts) @ self.encoder.queries([asked])[0]

        ways: dict[str, Callable[[], np.ndarray]] = {
            "lead": lambda: -np.arange(len(parts.texts)),
            "random": lambda: rng.random(len(parts.texts)),
            "overlap": lambda: containment([(text, question) for text in parts.texts]),
            "dense": lambda: near(question),
            "cross_encoder": lambda: self.cross_encoder.score([(question, text) for text in parts.texts]),
            "stranger": lambda: near(stranger),
            "random_words": lambda: rng.random(len(words.texts)),
            "surprise": lambda: self.surprise.words(passages),
            "contrast": lambda: self.surprise.words(passages) - self.surprise.words(passages, f"{question}\n"),
        }
        found = {}
        for name, way in ways.items():
            begun = time.perf_counter()
            scores = way()
            found[name] = (parts if SYSTEMS[name] else words, scores, time.perf_counter() - begun)
        return found
