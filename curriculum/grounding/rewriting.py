"""Rewrites of a sentence: some keep what it says, some change it. The verifier learns from both.

A rewrite returns None where it does not apply. Those that change the meaning give hard negatives: almost every word of the
claim is in the passage (Kryscinski et al., 2020, https://arxiv.org/abs/1910.12840 train FactCC in this way).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Rewrite = Callable[[str, random.Random, Sequence[str]], str | None]

_SYNONYMS = {
    "use": "employ", "uses": "employs", "used": "employed", "using": "by means of", "shows": "demonstrates", "big": "large",
    "large": "big", "small": "little", "returns": "gives back", "return": "give back", "raised": "thrown", "often": "frequently",
    "begins": "starts", "began": "started", "about": "roughly", "approximately": "about", "contains": "holds", "create": "make",
    "creates": "makes", "created": "made", "allows": "lets", "needs": "requires", "requires": "needs", "whole": "entire",
    "because": "since", "however": "yet", "also": "as well", "many": "numerous", "several": "a number of", "near": "close to",
    "specified": "given", "given": "specified", "method": "routine", "optional": "not mandatory", "must": "has to",
    "default": "preset", "whether": "if", "helps": "aids", "faster": "quicker", "main": "chief", "usually": "normally",
    "such as": "like", "in order to": "to", "according to": "as stated by", "called": "named", "known as": "called",
}  # fmt: skip
_SYNONYM = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _SYNONYMS), key=len, reverse=True)) + r")\b")
_AUXILIARY = re.compile(r"\b(is|are|was|were|can|could|will|would|should|must|may|might|does|do|did|has been|have been)\b(?! not)")
_NEGATED = re.compile(
    r"\b(is|are|was|were|can|could|will|would|should|must|may|does|do|did)(?: not|n't)\b|\bcannot\b|\bnever\b|\bno longer\b"
)
_UNIVERSAL = {
    "some": "all", "many": "all", "most": "all", "several": "all", "often": "always", "usually": "always", "sometimes": "always",
    "generally": "always", "typically": "always", "may": "must", "might": "will", "can": "must", "mostly": "entirely",
    "rarely": "never", "partly": "entirely",
}  # fmt: skip
_HEDGE = re.compile(r"\b(" + "|".join(_UNIVERSAL) + r")\b", re.IGNORECASE)
_CONDITION = re.compile(r",? (?:if|when|unless|until|while|only|except|provided that)\b[^,.;]*", re.IGNORECASE)
_ASIDE = re.compile(r"\s*\([^()]*\)|,\s(?:which|who|where|and therefore|so that)\b[^,.;]*(?=[,.;])")
_NUMBER = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?![\w-]|\.\d)")
_NAME = re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][\w-]*(?: [A-Z][\w-]*)*|\b\w+\(\)|`[^`]+`|\b\w+[._]\w+\b")
_OPPOSITES = {
    "more": "less", "less": "more", "higher": "lower", "lower": "higher", "before": "after", "after": "before", "first": "last",
    "last": "first", "increase": "decrease", "increases": "decreases", "decreases": "increases", "true": "false", "True": "False",
    "False": "True", "false": "true", "always": "never", "above": "below", "below": "above", "with": "without", "without": "with",
    "larger": "smaller", "smaller": "larger", "faster": "slower", "slower": "faster", "best": "worst", "old": "new", "new": "old",
    "maximum": "minimum", "minimum": "maximum", "left": "right", "right": "left", "start": "end", "end": "start", "all": "no",
    "same": "different", "different": "same", "long": "short", "short": "long", "open": "closed", "mutable": "immutable",
}  # fmt: skip
_OPPOSITE = re.compile(r"\b(" + "|".join(_OPPOSITES) + r")\b")


def keep_meaning(sentence: str, rng: random.Random) -> str:
    """A rewrite that the sentence still supports: asides dropped, words replaced, clauses swapped, a lead-in put before it."""
    if rng.random() < 0.5:
        sentence = _ASIDE.sub("", sentence)
    sentence = _SYNONYM.sub(lambda m: _SYNONYMS[m.group()] if rng.random() < 0.7 else m.group(), sentence)
    swapped = re.fullmatch(r"((?:If|When|While|Because|Since|Unless|After|Before) [^,]+), ([^,;:]+)\.", sentence)
    if swapped:
        sentence = f"{_upper(swapped[2])} {_lower(swapped[1])}."
    halves = re.split(r"; |, (?=and |but )", sentence)
    if len(halves) == 2 and rng.random() < 0.5:
        chosen = re.sub(r"^(?:and|but) ", "", rng.choice(halves))
        if len(chosen.split()) >= 5:
            sentence = _upper(chosen.rstrip(".")) + "."
    if rng.random() < 0.15:
        sentence = rng.choice(["According to the text, ", "It holds that ", "The passage says that "]) + _lower(sentence)
    return sentence


def swap_number(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """One figure replaced by another of the passage, or by a changed one."""
    places = list(_NUMBER.finditer(sentence))
    if not places:
        return None
    place = rng.choice(places)
    alternatives = [n for text in others for n in _NUMBER.findall(text) if n != place.group() and n not in sentence]
    new = rng.choice(alternatives) if alternatives and rng.random() < 0.6 else _changed(place.group(), rng)
    return None if new == place.group() else sentence[: place.start()] + new + sentence[place.end() :]


def swap_name(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """One name (a capitalised phrase, an identifier) replaced by another name of the passage or its neighbours."""
    places = list(_NAME.finditer(sentence))
    candidates = sorted({n for text in others for n in _NAME.findall(text) if n not in sentence})
    if not places or not candidates:
        return None
    place = rng.choice(places)
    return sentence[: place.start()] + rng.choice(candidates) + sentence[place.end() :]


def negate(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """A negation put in, or the one there taken out."""
    negated = _NEGATED.search(sentence)
    if negated:
        plain = {"cannot": "can", "never": "always", "no longer": "still"}.get(negated.group(), negated.group(1) or "")
        return sentence[: negated.start()] + plain + sentence[negated.end() :]
    auxiliary = _AUXILIARY.search(sentence)
    if auxiliary is None:
        return None
    negation = "not" if auxiliary.group() == "can" else " not"
    return sentence[: auxiliary.end()] + negation + sentence[auxiliary.end() :]


def reverse(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """One word replaced by its opposite."""
    places = list(_OPPOSITE.finditer(sentence))
    if not places:
        return None
    place = rng.choice(places)
    return sentence[: place.start()] + _OPPOSITES[place.group()] + sentence[place.end() :]


def generalise(sentence: str, rng: random.Random, others: Sequence[str]) -> str | None:
    """A hedge made universal, or the condition of a statement dropped and "always" put in."""
    hedge = _HEDGE.search(sentence)
    if hedge:
        word = _UNIVERSAL[hedge.group().lower()]
        return sentence[: hedge.start()] + (_upper(word) if hedge.group()[0].isupper() else word) + sentence[hedge.end() :]
    condition, auxiliary = _CONDITION.search(sentence, 1), _AUXILIARY.search(sentence)
    if condition is None or auxiliary is None or condition.start() <= auxiliary.end():
        return None
    always = sentence[: auxiliary.end()] + " always" + sentence[auxiliary.end() : condition.start()]
    return always + sentence[condition.end() :]


CHANGES: dict[str, Rewrite] = {
    "swapped-number": swap_number, "swapped-name": swap_name, "negation": negate, "reversal": reverse,
    "over-generalisation": generalise,
}  # fmt: skip


def _changed(number: str, rng: random.Random) -> str:
    value = float(number.replace(",", ""))
    new = rng.choice([value + rng.randint(1, 9), value * 2, value * 10, abs(value - rng.randint(1, 9)), value / 2])
    if "." in number:
        return f"{new:.{len(number.rsplit('.', 1)[1])}f}"
    return f"{round(new):,}" if "," in number else str(round(new))


def _lower(text: str) -> str:
    return text if re.match(r"[A-Z][A-Z0-9]|[A-Z]\b", text) else text[:1].lower() + text[1:]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
