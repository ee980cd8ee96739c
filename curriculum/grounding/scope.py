"""The scope check: a claim may not be wider than its passage.

An over-generalisation keeps the subject and the words of a passage and widens them by one: "a causal batch" becomes "any batch",
"usually" becomes "always". Similarity sees next to nothing of that, so this part of support is decided by rule, as numbers are.
"""

from __future__ import annotations

import re

_WIDENING = re.compile(
    r"\b(every|each|all|any|anything|always|whole|entirely|whatever|safely|guarantee[sd]?|never|none|no|nothing|only|exactly|must)\b",
    re.IGNORECASE,
)


def widened(passage: str, claim: str) -> int:
    """How many words that make a statement universal or exclusive ``claim`` has and ``passage`` has not; 0 passes the check."""
    known, stated = ({word.lower() for word in _WIDENING.findall(text)} for text in (passage, claim))
    return len(stated - known)
