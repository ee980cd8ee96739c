"""Training pairs for the support verifier, derived from question-answering examples: (passage, claim, supported)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from curriculum.crossencoder.training import Group
from curriculum.errors import DataError
from curriculum.grounding.claims import statement
from curriculum.grounding.rewriting import CHANGES, keep_meaning
from curriculum.grounding.sentences import sentences

if TYPE_CHECKING:
    import pandas as pd

_ELSEWHERE = 0.4
_STOP = frozenset("a an the of to in on at by for with and or but as is are was were be been it its this that these those".split())


def training_groups(examples: pd.DataFrame, *, words: int, per_example: int, seed: int) -> list[Group]:
    """Groups of one supported and one unsupported claim about the same passage.

    ``examples`` has the columns of question-answering examples; a passage is the run of at most ``words`` words around the
    answer. Negatives are answers of the same kind from elsewhere in the passage, sentences with a number, a name, a polarity, a
    comparison or a scope changed, and (``_ELSEWHERE`` of the sentence claims) sentences of other documents: with altered ones
    alone a small encoder learns neither what is near nor what is off the subject. Claims built from a sentence are rewritten
    in the same way on both sides, so that the rewriting tells nothing. The same seed gives the same groups.

    Raises:
        DataError: no example yields a pair (no answers, or contexts too short).
    """
    rng = random.Random(seed)
    groups: list[Group] = []
    split = {str(context): sentences(str(context)) for context in examples["context"].unique()}
    everything = [part for parts in split.values() for part in parts if _usable(part)]
    for context, rows in examples.groupby("context", sort=False):
        parts = split[str(context)]
        for row in rows.itertuples():
            if len(row.answers):
                centre = sentence_at(str(context), parts, int(row.answer_starts[0]))
                groups += list(_of_answer(str(row.question), str(row.answers[0]), parts, centre, words, rng))
            for _ in range(per_example):
                groups += list(_of_sentence(parts, words, rng, everything))
    if not groups:
        raise DataError("the question-answering examples give no training pair for the verifier: they have no answers in context")
    rng.shuffle(groups)
    return groups


def window(parts: list[str], centre: int, words: int, rng: random.Random) -> tuple[int, int]:
    """Bounds of a run of sentences around ``centre``, of about a random share of ``words`` words."""
    low, high = centre, centre + 1
    limit = rng.randint(words // 2, words)
    while low > 0 or high < len(parts):
        grow_low = low > 0 and (high == len(parts) or rng.random() < 0.5)
        added = parts[low - 1] if grow_low else parts[high]
        if sum(len(p.split()) for p in parts[low:high]) + len(added.split()) > limit:
            break
        low, high = (low - 1, high) if grow_low else (low, high + 1)
    return low, high


def sentence_at(context: str, parts: list[str], offset: int) -> int:
    """Index of the sentence at character ``offset`` of ``context``; whitespace, which ``parts`` squeeze, is not counted."""
    letters = len(re.sub(r"\s", "", context[:offset]))
    for i, part in enumerate(parts):
        letters -= len(re.sub(r"\s", "", part))
        if letters < 0:
            return i
    return len(parts) - 1


def _of_answer(question: str, answer: str, parts: list[str], centre: int, words: int, rng: random.Random) -> Iterator[Group]:
    low, high = window(parts, centre, words, rng)
    wrong = distractor(answer, parts[low:high], rng)
    if wrong is not None:
        yield _pair(" ".join(parts[low:high]), statement(question, answer), statement(question, wrong))


def _usable(part: str) -> bool:
    return 6 <= len(part.split()) <= 40


def _of_sentence(parts: list[str], words: int, rng: random.Random, everything: Sequence[str]) -> Iterator[Group]:
    usable = [i for i, part in enumerate(parts) if _usable(part)]
    if not usable:
        return
    centre = rng.choice(usable)
    low, high = window(parts, centre, words, rng)
    claim = keep_meaning(parts[centre], rng)
    if rng.random() < _ELSEWHERE:
        other = rng.choice(everything)
        if other not in parts:
            yield _pair(" ".join(parts[low:high]), claim, keep_meaning(other, rng))
            return
    kinds = list(CHANGES)
    rng.shuffle(kinds)
    for kind in kinds:
        changed = CHANGES[kind](claim, rng, parts[low:high])
        if changed is not None and changed != claim:
            yield _pair(" ".join(parts[low:high]), claim, changed)
            return


def _pair(passage: str, supported: str, unsupported: str) -> Group:
    return Group(((passage, supported), (passage, unsupported)), (1.0, 0.0))


def distractor(answer: str, parts: list[str], rng: random.Random) -> str | None:
    """A span of ``parts`` of the same kind as ``answer`` (figure, name, or phrase of like length) that shares no content word."""
    taken = set(re.findall(r"\w+", answer.lower())) - _STOP
    if re.search(r"\d", answer):
        found = re.findall(r"\d[\d,.]*\d|\d", " ".join(parts))
        figures = sorted({f for f in found if f not in answer})
        return re.sub(r"\d[\d,.]*\d|\d", rng.choice(figures), answer, count=1) if figures else None
    spans = []
    for part in parts:
        tokens = part.split()
        size = min(len(answer.split()), 8)
        for i in range(len(tokens) - size + 1):
            span = " ".join(tokens[i : i + size]).strip(".,;:()\"'")
            edges = re.findall(r"\w+", span.lower())
            named = answer[:1].isupper() == span[:1].isupper()
            if edges and named and edges[-1] not in _STOP and (edges[0] not in _STOP or size > 2) and not taken & set(edges):
                spans.append(span)
    return rng.choice(spans) if spans else None
