"""The second question: the first one with what it found. And what is shown of both searches.

A bridge question does not name what its answer is about; the passage that does is found first. Multi-hop dense retrieval encodes the
question together with that passage (Xiong et al., 2021), GoldEn Retriever asks with words of it (Qi et al., 2019).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from curriculum.grounding.sentences import sentences
from curriculum.multi_hop.settings import MultiHopSettings
from curriculum.reranking.mining import Retriever
from curriculum.retrieval.bm25 import Hits
from curriculum.retrieval.hybrid import fuse, ranked

Vectors = Callable[[list[str]], np.ndarray]
WAYS = ("passage", "sentence", "terms")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Asking:
    """What a second question is made with: the texts of passages by id, an encoder's vectors, and how many passages each word stands in."""

    texts: Mapping[str, str]
    queries: Vectors
    passages: Vectors
    frequency: Mapping[str, int]

    @classmethod
    def over(cls, texts: Mapping[str, str], queries: Vectors, passages: Vectors) -> Asking:
        """The frequencies counted over ``texts``."""
        return cls(texts, queries, passages, Counter(word for text in texts.values() for word in set(_words(text))))

    def again(self, way: str, question: str, passage: str, settings: MultiHopSettings) -> str:
        """The second question after ``passage`` (an id) was found for ``question``.

        ``passage``: with its first words. ``sentence``: with its sentence nearest to the question. ``terms``: with its rarest words that
        are not in the question.
        """
        text = self.texts[passage]
        if way == "passage":
            return f"{question} {' '.join(text.split()[: settings.words])}"
        if way == "sentence":
            parts = sentences(text) or [text]
            return f"{question} {parts[int(np.argmax(self.passages(parts) @ self.queries([question])[0]))]}"
        said = set(_words(question))
        new = dict.fromkeys(word for word in _words(text) if word not in said and not word.isdigit())
        rare = sorted(new, key=lambda word: self.frequency[word])
        return f"{question} {' '.join(rare[: settings.terms])}"


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Hops:
    """What each question found: in the first search, and in the second ones, a list of hits a passage of the beam."""

    first: Hits
    second: list[list[list[tuple[str, float]]]]

    def shown(self, place: int, kept: int, k: int) -> list[str]:
        """``k`` ids for the question at ``place``: the ``kept`` best of the first search, then the best of the second ones that are new.

        Several second searches are one by reciprocal rank fusion. Where they have too few, the first search fills up.
        """
        first = [passage for passage, _ in self.first[place]]
        fused = fuse([dict(hits) for hits in self.second[place]], "rrf") if self.second[place] else {}
        second = [passage for passage, _ in ranked(fused, len(fused))]
        return list(dict.fromkeys([*first[:kept], *second, *first]))[:k]


def search_again(
    way: str, questions: Sequence[str], first: Hits, asking: Asking, retriever: Retriever, settings: MultiHopSettings, collection: str,
    *, stranger: bool = False,
) -> Hops:  # fmt: skip
    """The second searches of every question after its ``first`` hits; with ``stranger`` after those of the next question, a control."""
    found = [first[(place + 1) % len(first)] if stranger else first[place] for place in range(len(first))]
    beams = [[passage for passage, _ in hits[: settings.beam]] for hits in found]
    asked = [asking.again(way, question, passage, settings) for question, beam in zip(questions, beams, strict=True) for passage in beam]
    hits, place, second = retriever.search(asked, settings.depth, collection), 0, []
    for beam in beams:
        second.append(hits[place : place + len(beam)])
        place += len(beam)
    return Hops(first, second)
