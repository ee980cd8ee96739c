"""The four sources of a wrong answer, and the rule that tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

from curriculum.rag.report import UNANSWERABLE
from curriculum.reading.metrics import f1, normalise

OVER_CONFIDENCE, RETRIEVAL_MISS, IGNORED, ADDITION = SOURCES = (
    "over_confidence", "retrieval_miss", "context_ignored", "unsupported_addition",
)  # fmt: skip
RIGHT, ABSTAINED = "right", "abstained"
OVERLAP = 0.5  # word F1 from which an answer counts as the gold one, where it does not hold it word for word


def is_right(text: str, gold: Sequence[str]) -> bool:
    """Whether ``text`` holds a gold answer word for word, or overlaps one by half."""
    said = f" {normalise(text)} "
    return bool(text) and len(gold) > 0 and (f1(text, list(gold)) >= OVERLAP or any(f" {normalise(g)} " in said for g in gold if normalise(g)))


def attribute(kind: str, draft: str, gold: Sequence[str], *, shown: bool, grounded: bool) -> str:
    """The source of one draft, or that it is right or an abstention.

    The questions are asked in this order, so that the classes are disjoint: had the question no answer (over-confidence); was the
    passage with the answer not ``shown`` (retrieval miss); is the answer not the gold one (context ignored); is a part of it
    supported by no passage, ``grounded`` false (unsupported addition).
    """
    if not draft:
        return ABSTAINED
    if kind in UNANSWERABLE:
        return OVER_CONFIDENCE
    right = is_right(draft, gold)
    if right and grounded:
        return RIGHT
    if not shown:
        return RETRIEVAL_MISS
    return ADDITION if right else IGNORED
