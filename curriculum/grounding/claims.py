"""An answer as claims that can be held against a passage."""

from __future__ import annotations

import re

from curriculum.grounding.sentences import sentences

_COPULA = re.compile(r"^(?:what|which|who) (is|are|was|were) (?P<subject>[^?]+)\?*$", re.IGNORECASE)
_COUNT = re.compile(r"^how many (?P<noun>[\w -]+?) (?P<verb>is|are|was|were)\b(?P<rest>[^?]*)\?*$", re.IGNORECASE)


def statement(question: str, answer: str) -> str:
    """A question and its answer as one claim: declarative where the form is plain, else ``question answer``.

    ``What is the capital of France?`` and ``Paris`` give ``The capital of France is Paris.`` An answer of more than 12 words,
    or one that is a sentence, is the claim itself.
    """
    answer = " ".join(answer.split()).rstrip(".")
    question = " ".join(question.split())
    if len(answer.split()) > 12 and re.match(r"[A-Z]", answer):
        return f"{answer}."
    copula = _COPULA.match(question)
    if copula:
        subject = copula["subject"].strip()
        return f"{subject[:1].upper()}{subject[1:]} {copula[1].lower()} {answer}."
    count = _COUNT.match(question)
    if count:
        return f"{answer} {count['noun']} {count['verb']}{count['rest'].rstrip()}."
    return f"{question.rstrip('?')}? {answer}."


def claims_of(question: str, answer: str) -> list[str]:
    """The claims an answer makes: a short answer with its question as one statement, a longer one sentence by sentence."""
    parts = sentences(answer)
    if not parts:
        return []
    return [statement(question, answer)] if len(parts) == 1 else parts
