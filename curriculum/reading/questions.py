"""Questions with exact answer spans, made by rule from docstrings: what a function does, returns, raises and defaults to.

And what any question asks for, by its question word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_RETURNS = re.compile(r"(?m)^\s*Returns? ((?:the|a|an|True|all|whether|an?)\b[^.:\n]*(?:\n[ \t]*[^.:\n\s][^.:\n]*)?)(?=[.\n:]|$)")
_RAISES = re.compile(r"[Rr]aises? (?:an? )?:?(?:exc:)?`?(\w+(?:Error|Exception|Warning|Interrupt))`?( (?:if|when|unless) [^.;\n]{8,90})")
_PARAMETER = re.compile(r"(?m)^(\w+) : ([^\n]+?)(?:, (?:optional, )?default(?:=|: ?| |s to )([^\s,)]+))?$")
_ASKS = re.compile(r"\b(who|whom|whose|what|when|where|why|how|which)\b")


@dataclass(frozen=True)
class Asked:
    """A question, and where its answer stands in the text it was made from."""

    kind: str
    question: str
    start: int
    end: int


def ask(name: str, text: str, summary: str) -> Iterator[Asked]:
    """Every question the rules find in one docstring. Offsets are characters of ``text``."""
    short = name.rsplit(".", 1)[-1] if name.count(".") > 2 else name
    yield from _does(short, text, summary)
    for found in list(_RETURNS.finditer(text))[:1]:
        if 12 <= len(found.group(1)) <= 140:
            yield Asked("returns", f"What does {short} return?", *found.span(1))
    for found in list(_RAISES.finditer(text))[:2]:
        clause = re.sub(r"\s+", " ", found.group(2)).strip()
        yield Asked("raises", f"Which exception does {short} raise {clause}?", *found.span(1))
    for found in list(_PARAMETER.finditer(text))[:3]:
        if found.group(3):
            yield Asked("default", f"What is the default of {found.group(1)} in {short}?", *found.span(3))
        elif 4 <= len(found.group(2)) <= 70:
            yield Asked("type", f"What is the type of the parameter {found.group(1)} of {short}?", *found.span(2))


def _does(name: str, text: str, summary: str) -> Iterator[Asked]:
    if not 20 <= len(summary) <= 160 or summary.lower().startswith("return"):
        return
    found = re.search(r"\s+".join(re.escape(word) for word in summary.rstrip(".").split()), text)
    if found:
        yield Asked("does", f"What does {name} do?", *found.span())


def question_type(question: str) -> str:
    """What a question asks for by its first question word: who (also whom, whose), what, when, where, why, how, which, or other."""
    found = _ASKS.search(question.lower())
    return "other" if found is None else {"whom": "who", "whose": "who"}.get(found.group(1), found.group(1))
