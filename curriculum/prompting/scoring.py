"""Verdicts: what counts as correct, as an abstention, and as a hallucination."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from curriculum.reading.metrics import normalise

Verdict = Literal["correct", "abstained", "hallucinated"]
_ABSTENTION = re.compile(
    r"\b(?:i|we) (?:do not|don't|cannot|can't|am not able to|are not able to) (?:know|answer|say|tell|find|determine)|\bi(?: am|'m) not sure"
    r"|\b(?:not|isn't|aren't|never) (?:stated|mentioned|specified|provided|given|known|contained|discussed)|\bunknown\b|\bno (?:answer|information)\b"
    r"|\b(?:does|do) not (?:say|state|mention|specify|provide|contain|give)|\b(?:cannot|can't|can not) be (?:answered|determined|found)",
    re.IGNORECASE,
)
_REJECTION = re.compile(
    r"\b(?:premise|assumption|question) (?:is|seems) (?:false|wrong|incorrect|mistaken)|\b(?:that|this) is (?:not (?:true|correct|right)|false|wrong)"
    r"|\bthere is no such\b|\bin fact\b.*\bnot\b|\bdoes not exist\b",
    re.IGNORECASE,
)


def abstains(answer: str) -> bool:
    """Whether an answer says that it is none. An empty answer is one."""
    return not answer.strip() or bool(_ABSTENTION.search(answer.replace("’", "'")))


def holds(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an accepted answer stands in the answer, as whole words after SQuAD normalisation: "8" is not in "128"."""
    said = f" {normalise(answer)} "
    return any(f" {wanted} " in said for wanted in map(normalise, accepted) if wanted)


@dataclass(frozen=True)
class Judged:
    """A verdict and the rule that gave it."""

    verdict: Verdict
    reason: str


def judge(kind: str, answer: str, accepted: Sequence[str]) -> Judged:
    """The verdict on one answer.

    Answerable: right, an abstention, or a hallucination. Unanswerable: anything but an abstention is a hallucination. False
    premise: anything but an abstention, a rejection of the premise, or an accepted correction is a hallucination.
    """
    if abstains(answer):
        return Judged("abstained", "says that it does not know")
    if kind == "answerable":
        found = holds(answer, accepted)
        return Judged("correct", "holds an accepted answer") if found else Judged("hallucinated", "answers, and no accepted answer is in it")
    if kind == "false_premise" and (holds(answer, accepted) or _REJECTION.search(answer)):
        return Judged("correct", "rejects or corrects the premise")
    return Judged("hallucinated", f"answers a question that is {kind.replace('_', ' ')}")
