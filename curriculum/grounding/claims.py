"""An answer as claims that can be held against a passage."""

from __future__ import annotations

import re

from curriculum.grounding.sentences import sentences

_BE = "is|are|was|were"
_AUXILIARY = rf"{_BE}|can|could|will|would|should|must|may|might|has|have|had"
_COPULA = re.compile(rf"^(?:what|who|which) (?P<verb>{_BE}) (?P<subject>.+)$", re.IGNORECASE)
_COUNT = re.compile(rf"^how (?:many|much) (?P<noun>[\w-]+(?: [\w-]+)??) (?P<rest>(?:{_AUXILIARY})\b.*)$", re.IGNORECASE)
_DO = re.compile(
    r"^(?P<preposition>(?:in|on|at|by|to|for|from|with|of|under) )?(?:what|which|who|whom|when|where|how)\b.*?"
    r" (?:do|does|did) (?P<rest>.+)$",
    re.IGNORECASE,
)
_ADVERB = re.compile(rf"^(?:when|where|how) (?P<verb>{_AUXILIARY}) (?P<rest>.+)$", re.IGNORECASE)
_SUBJECT = re.compile(r"^(?:who|what|which(?: (?!of\b)[\w-]+){1,3}?) (?P<rest>(?:[a-z]+(?:s|ed)|" + _AUXILIARY + r")\b.*)$", re.IGNORECASE)


def statement(question: str, answer: str) -> str:
    """A question and its answer as one claim: declarative where the question has one of the common forms, else ``question answer``.

    ``What is the capital of France?`` and ``Paris`` give ``The capital of France is Paris.`` The grammar may limp (``the Seine
    flow through Paris``): a verifier reads it, nobody else does. An answer that is a sentence is the claim itself.
    """
    answer = " ".join(answer.split())
    question = " ".join(question.split()).rstrip("?").rstrip()
    if len(answer.split()) >= 5 and re.fullmatch(r"[A-Z].*[.!]", answer):
        return answer
    answer = answer.rstrip(".")
    made = _declarative(question, answer)
    return f"{made[:1].upper()}{made[1:]}." if made else f"{question}? {answer}."


def _declarative(question: str, answer: str) -> str | None:
    if found := _COPULA.match(question):
        return f"{found['subject']} {found['verb'].lower()} {answer}"
    if found := _COUNT.match(question):
        return f"{answer} {found['noun']} {found['rest']}"
    if found := _DO.match(question):
        preposition = (found["preposition"] or "").lower()
        return f"{found['rest']} {preposition}{answer}"
    if found := _ADVERB.match(question):
        return f"{found['rest']} {found['verb'].lower()} {answer}"
    if found := _SUBJECT.match(question):
        return f"{answer} {found['rest']}"
    return None


def claims_of(question: str, answer: str) -> list[str]:
    """The claims an answer makes: a short answer with its question as one statement, a longer one sentence by sentence."""
    parts = sentences(answer)
    if not parts:
        return []
    return [statement(question, answer)] if len(parts) == 1 else parts
