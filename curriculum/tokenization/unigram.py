"""Segmentation by a unigram language model (Kudo, 2018, arXiv 1804.10959): the best one, the n best, samples, expected counts.

The probability of a segmentation is the product of its pieces' probabilities. All segmentations of a word form a lattice over its
n + 1 boundaries; an edge is a piece. Best segmentations are the `tokenizers` library's, ties included.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import regex

SPACE = "▁"  # U+2581 stands for a space, and begins every word
UNKNOWN = "[UNK]"
UNKNOWN_PENALTY = 10.0  # nats below the least probable piece: what an unknown character costs, as in the library and SentencePiece
_WORD = regex.compile(rf"{SPACE}[^{SPACE}]*")
Edges = list[list[tuple[int, float]]]  # for each boundary the edges that end there: where they start, their score


def words_of(text: str) -> list[str]:
    """The words of a text, each with the space before it as U+2581; a text that begins without a space gets one."""
    marked = text.replace(" ", SPACE)
    return _WORD.findall(marked if not marked or marked.startswith(SPACE) else SPACE + marked)


@dataclass(frozen=True)
class UnigramModel:
    """Pieces with their scores, natural logarithms of probabilities (they need not sum to 1).

    Raises:
        ValueError: no pieces, or the empty piece.
    """

    scores: Mapping[str, float]
    unknown: str = UNKNOWN

    def __post_init__(self) -> None:
        if not self.scores or "" in self.scores:
            raise ValueError("a unigram model needs pieces, none of them empty")

    @cached_property
    def longest(self) -> int:
        """Characters of the longest piece."""
        return max(map(len, self.scores))

    @cached_property
    def unknown_score(self) -> float:
        """The score of a character that is no piece."""
        return min(self.scores.values()) - UNKNOWN_PENALTY

    def edges(self, word: str) -> Edges:
        """The lattice of a word. A character that is no piece by itself gets an edge of its own, so every word has a path."""
        ending: Edges = [[] for _ in range(len(word) + 1)]
        for start in range(len(word)):
            for end in range(start + 1, min(start + self.longest, len(word)) + 1):
                score = self.scores.get(word[start:end])
                if score is not None:
                    ending[end].append((start, score))
                elif end == start + 1:
                    ending[end].append((start, self.unknown_score))
        return ending

    def encode(self, text: str) -> list[str]:
        """The tokens of a text: the best segmentation of each of its words. A run of unknown characters is one token."""
        return [token for word in words_of(text) for token in self.segment(word)]

    def segment(self, word: str) -> list[str]:
        """The best segmentation (Viterbi). Among equal ones, the longest last piece, at every boundary."""
        best, back = [0.0], [0]
        for incoming in self.edges(word)[1:]:
            start, score = max(incoming, key=lambda edge: best[edge[0]] + edge[1])
            best.append(best[start] + score)
            back.append(start)
        boundaries = [len(word)]
        while boundaries[-1]:
            boundaries.append(back[boundaries[-1]])
        return self._tokens(word, boundaries[::-1])

    def n_best(self, word: str, n: int) -> list[tuple[list[str], float]]:
        """The ``n`` best segmentations with their scores, best first; fewer where the word has fewer.

        Raises:
            ValueError: ``n`` below 1.
        """
        if n < 1:
            raise ValueError(f"n is {n}; ask for at least one segmentation")
        paths: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, (0,))]]
        for end, incoming in enumerate(self.edges(word)[1:], start=1):
            longer = [(before + score, (*path, end)) for start, score in incoming for before, path in paths[start]]
            paths.append(sorted(longer, key=lambda scored: -scored[0])[:n])
        return [(self._tokens(word, path), score) for score, path in paths[-1]]

    def sample(self, word: str, uniform: Callable[[], float], temperature: float = 1.0) -> list[str]:
        """A segmentation drawn with a probability proportional to its own to the power of 1 / ``temperature``.

        Near 0 that is the best one, at 1 the model's distribution, far above all are alike. Forward filtering, backward sampling
        over the whole lattice: Kudo's l-best with l without bound, ``temperature`` his 1 / alpha. ``uniform`` draws from [0, 1).

        Raises:
            ValueError: ``temperature`` is not positive.
        """
        if temperature <= 0:
            raise ValueError(f"the temperature is {temperature}; it has to be positive")
        edges = [[(start, score / temperature) for start, score in incoming] for incoming in self.edges(word)]
        reached = forward(edges)
        boundaries = [len(word)]
        while end := boundaries[-1]:
            left = uniform()
            for start, score in edges[end]:
                boundary = start
                left -= math.exp(reached[start] + score - reached[end])
                if left < 0:
                    break
            boundaries.append(boundary)
        return self._tokens(word, boundaries[::-1])

    def expected_counts(self, word: str) -> tuple[dict[str, float], float]:
        """How often each piece is expected in the word, over all segmentations, and the log-likelihood of the word in nats.

        Raises:
            ValueError: a character of the word is no piece, so the word has no probability.
        """
        if missing := next((character for character in word if character not in self.scores), None):
            raise ValueError(f"the character {missing!r} is no piece, so '{word}' has no probability")
        edges = self.edges(word)
        reached, ahead = forward(edges), backward(edges)
        counts: dict[str, float] = defaultdict(float)
        for end, incoming in enumerate(edges):
            for start, score in incoming:
                counts[word[start:end]] += math.exp(reached[start] + score + ahead[end] - reached[-1])
        return counts, reached[-1]

    def _tokens(self, word: str, boundaries: Iterable[int]) -> list[str]:
        """The pieces between boundaries, neighbours that are unknown as one."""
        tokens: list[str] = []
        after_unknown = False
        for start, end in itertools.pairwise(boundaries):
            piece = word[start:end]
            is_unknown = piece == self.unknown or piece not in self.scores
            if is_unknown and after_unknown:
                tokens[-1] += piece
            else:
                tokens.append(piece)
            after_unknown = is_unknown
        return tokens


def forward(edges: Edges) -> list[float]:
    """For each boundary the log of the summed probability of all paths from the word's start to it."""
    reached = [0.0]
    for incoming in edges[1:]:
        reached.append(_log_sum([reached[start] + score for start, score in incoming]))
    return reached


def backward(edges: Edges) -> list[float]:
    """For each boundary the log of the summed probability of all paths from it to the word's end."""
    ahead: list[list[float]] = [[] for _ in edges]
    ahead[-1] = [0.0]
    done = [0.0] * len(edges)
    for end in range(len(edges) - 1, -1, -1):
        done[end] = _log_sum(ahead[end])
        for start, score in edges[end]:
            ahead[start].append(done[end] + score)
    return done


def _log_sum(logs: list[float]) -> float:
    highest = max(logs)
    return highest + math.log(sum(math.exp(log - highest) for log in logs))
