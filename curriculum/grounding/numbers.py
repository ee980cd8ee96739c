"""The numbers check: every number a claim states must occur in the passage, however either of them writes it.

A sentence with one figure changed keeps a cosine similarity of 0.98 to the original, and a small cross-encoder reads digits
poorly, so this part of support is decided by rule.
"""

from __future__ import annotations

import re

_UNITS = {
    "zero": 0, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "bn": 1e9, "T": 1e12}
_SMALL = "|".join([*_UNITS, "one"])
_WORD = rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{_SMALL}))?|{_SMALL})"
_SCALE = "|".join(_SCALES)
_NAME = re.compile(r"\b[A-Z][\w.]*(?:-[\w.]*\w)*")  # BM25, Llama-3-8B: digits of a name are no figures
_DIGITS = re.compile(
    rf"(?<![\w.])(?P<sign>[-−](?=\d))?(?P<number>\d{{1,3}}(?:[,  ]\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    rf"(?:e(?P<power>[+-]?\d+))?(?:[ -]?(?P<scale>{_SCALE})s?\b|(?P<suffix>bn|[kKMBT])\b)?(?P<percent>\s?(?:%|per ?cent\b))?"
)
_WORDS = re.compile(
    rf"\b(?P<fold>{_WORD})-?fold\b"
    rf"|\b(?P<word>{_WORD})(?P<scales>(?:[ -](?:{_SCALE}))*)(?P<half> and a half)?\b(?P<percent>\s?(?:%|per ?cent\b))?",
    re.IGNORECASE,
)


def numbers(text: str) -> list[frozenset[float]]:
    """The numbers of ``text``, in reading order, each as the values it may be read as.

    ``1,536`` is {1536}; ``41%`` is {41, 0.41}, since a passage may give the share; ``sixty-four`` and ``64`` agree, and so do
    ``65B``, ``65-billion`` and ``6.5e10``. A lone ``one`` is not counted: it is a pronoun as often as a number. Digits inside
    a name that starts with a capital (``BM25``, ``Llama-3-8B``) are not counted either.
    """
    text = _NAME.sub(lambda m: " " * len(m.group()) if re.search(r"\d", m.group()) else m.group(), text)
    found = [(m.start(), _of_digits(m)) for m in _DIGITS.finditer(text)]
    found += [(m.start(), values) for m in _WORDS.finditer(text) if (values := _of_words(m))]
    return [values for _, values in sorted(found, key=lambda item: item[0])]


def missing_numbers(passage: str, claim: str) -> int:
    """How many numbers of ``claim`` do not occur in ``passage``: 0 when the check passes."""
    known = [value for values in numbers(passage) for value in values]
    return sum(not any(_same(a, b) for a in values for b in known) for values in numbers(claim))


def numbers_supported(passage: str, claim: str) -> bool:
    """Whether every number of ``claim`` occurs in ``passage``."""
    return missing_numbers(passage, claim) == 0


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-13 * max(abs(a), abs(b))


def _readings(value: float, percent: str | None) -> frozenset[float]:
    return frozenset({value, value / 100}) if percent else frozenset({value})


def _of_digits(match: re.Match[str]) -> frozenset[float]:
    value = float(re.sub(r"[,  ]", "", match["number"])) * 10.0 ** int(match["power"] or 0)
    value *= _SCALES.get(match["scale"] or "", 1.0) * _SUFFIXES.get(match["suffix"] or "", 1.0)
    return _readings(-value if match["sign"] else value, match["percent"])


def _of_words(match: re.Match[str]) -> frozenset[float]:
    value = float(sum(_UNITS.get(w, _TENS.get(w, 1)) for w in re.split(r"[ -]", (match["fold"] or match["word"]).lower())))
    scales = re.findall(_SCALE, (match["scales"] or "").lower())
    if value == 1 and not scales and not match["half"] and not match["percent"] and not match["fold"]:
        return frozenset()
    for scale in scales:
        value *= _SCALES[scale]
    return _readings(value + 0.5 * bool(match["half"]), match["percent"])
