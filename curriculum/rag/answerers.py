"""Who writes the draft of an answer from the passages shown: a text generator, or an extractive reader."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from curriculum.generation.base import Generator

RULES = (
    "Answer the question from the numbered passages only, in one short sentence, and cite the passage like [1]. "
    "If the passages do not hold the answer, say: I don't know."
)
_ABSTENTION = re.compile(
    r"\b(?:i do(?:n't| not) know|i am not sure|i'm not sure|cannot answer|can't answer|not (?:stated|mentioned|specified|provided)|"
    r"do(?:es)? not (?:say|state|mention|specify|provide|contain)|no (?:information|answer))\b",
    re.IGNORECASE,
)
_MARK = re.compile(r"\s*\[(\d+(?:\s*,\s*\d+)*)\]")


@dataclass(frozen=True)
class Draft:
    """A draft answer ("" when the answerer abstains), how it came about, and the seconds it took."""

    text: str
    transcript: str
    seconds: float


class Answerer(Protocol):
    """Answers questions from passages, best passage first."""

    def answer(self, questions: Sequence[str], contexts: Sequence[Sequence[str]]) -> list[Draft]:
        """One draft a question, from the texts of its passages."""


class GeneratorAnswerer:
    """Prompts a text generator with the rules, the numbered passages and the question."""

    def __init__(self, generator: Generator, *, max_new_tokens: int, passage_words: int, seed: int = 0) -> None:
        self.generator = generator
        self.max_new_tokens = max_new_tokens
        self.passage_words = passage_words
        self.seed = seed

    def messages(self, question: str, contexts: Sequence[str]) -> list[dict[str, str]]:
        """The chat messages of one question."""
        shown = "\n".join(f"[{i}] {' '.join(text.split()[: self.passage_words])}" for i, text in enumerate(contexts, 1))
        return [{"role": "system", "content": RULES}, {"role": "user", "content": f"{shown}\n\nQuestion: {question}"}]

    def answer(self, questions: Sequence[str], contexts: Sequence[Sequence[str]]) -> list[Draft]:
        """One draft a question; an answer that says it does not know is an abstention."""
        prompts = [self.messages(q, c) for q, c in zip(questions, contexts, strict=True)]
        made = self.generator.generate(prompts, max_new_tokens=self.max_new_tokens, seed=self.seed)
        return [
            Draft(clean_answer(g.text), "\n\n".join(f"{m['role']}: {m['content']}" for m in [*p, _said(g.text)]), g.seconds)
            for p, g in zip(prompts, made, strict=True)
        ]


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def without_marks(text: str) -> str:
    """``text`` without citation marks such as [1] and [2, 3]."""
    return _MARK.sub("", text)


def clean_answer(text: str) -> str:
    """Generated text without citation marks and superfluous space; "" when it says that it does not know."""
    text = " ".join(without_marks(text).split())
    return "" if _ABSTENTION.search(text) else text


class ReaderAnswerer:
    """Reads every passage with an extractive reader and takes the span of highest score.

    ``read`` maps (question, passage) pairs to (span, score) each, the span "" where the reader finds no answer.
    """

    def __init__(self, read: Callable[[list[tuple[str, str]]], list[tuple[str, float]]]) -> None:
        self.read = read

    def answer(self, questions: Sequence[str], contexts: Sequence[Sequence[str]]) -> list[Draft]:
        """One draft a question; the seconds are the mean of the batch, which is read at once."""
        start = time.perf_counter()
        spans = self.read([(q, text) for q, texts in zip(questions, contexts, strict=True) for text in texts])
        seconds = (time.perf_counter() - start) / max(1, len(questions))
        drafts, place = [], 0
        for question, texts in zip(questions, contexts, strict=True):
            own = spans[place : place + len(texts)]
            place += len(texts)
            found = [span for span in own if span[0].strip()]
            best = max(found, key=lambda span: span[1])[0].strip() if found else ""
            lines = [f"[{i}] {score:.3f} {span!r}" for i, (span, score) in enumerate(own, 1)]
            drafts.append(Draft(best, "\n".join([f"question: {question}", *lines, f"answer: {best!r}"]), seconds))
        return drafts
