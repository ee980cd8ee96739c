"""F1 of an answer against gold answers, as SQuAD's official script has it (Rajpurkar et al., 2016)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def best_f1(answer: str, gold: Sequence[str]) -> float:
    """Best word F1 of ``answer`` against one of ``gold``: lower case, no punctuation, no articles. 0 without gold or answer."""
    return max((_f1(_words(answer), _words(g)) for g in gold), default=0.0)


def _words(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _f1(answer: list[str], gold: list[str]) -> float:
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold)) if common else 0.0
