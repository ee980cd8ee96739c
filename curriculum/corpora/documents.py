"""The documents table every corpus has, and the text work all of them share."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pandas as pd

from curriculum.errors import DataError

COLUMNS = ["doc_id", "title", "text", "source", "module", "qualified_name", "kind", "summary", "language", "digest"]
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all but tab and line feed
_RULES = re.compile(r"^[=*~^-]{3,}$", re.MULTILINE)  # lines over and under a heading
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")


def text_digest(text: str) -> str:
    """SHA-256 (hex) of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def document(doc_id: str, title: str, text: str, **fields: str) -> dict[str, str]:
    """One row: ``fields`` may give source, module, qualified_name, kind, summary and language."""
    row = dict.fromkeys(COLUMNS, "") | {"kind": "document", "language": "en"} | fields
    return row | {"doc_id": doc_id, "title": title, "text": text, "digest": text_digest(text)}


def documents_table(rows: list[dict[str, str]], origin: str) -> pd.DataFrame:
    """A documents table sorted by id.

    Raises:
        DataError: no rows, or two rows of one id (the first few are named).
    """
    if not rows:
        raise DataError(f"{origin} holds no documents; point the source at a folder or file with text")
    table = pd.DataFrame(rows, columns=COLUMNS).astype(str)
    twice = sorted(table.loc[table["doc_id"].duplicated(), "doc_id"].unique())
    if twice:
        raise DataError(f"{origin} has {len(twice)} ids more than once ({', '.join(twice[:5])}); give every document its own id")
    return table.sort_values("doc_id", ignore_index=True)


def first_sentence(text: str, limit: int = 240) -> str:
    """The first sentence of the first paragraph, on one line: a docstring's summary. Empty where it is longer than ``limit``."""
    first = next((part for part in _RULES.split(text) if part.strip()), "")  # a heading ends where the line under it begins
    paragraph = re.sub(r"\s+", " ", first.strip().split("\n\n")[0]).strip()
    end = re.search(r"(?<=[.!?])\s+(?=[A-Z`'\"(*])", paragraph)
    sentence = paragraph[: end.start()] if end else paragraph
    return sentence if len(sentence) <= limit else ""


def cut_at_paragraph(text: str, limit: int) -> str:
    """``text`` up to ``limit`` characters, ending where a paragraph does if one ends in the second half."""
    if len(text) <= limit:
        return text
    end = text.rfind("\n\n", limit // 2, limit)
    return text[: end if end > 0 else limit].rstrip()


def split_of(key: str, shares: dict[str, float]) -> str:
    """Which split a key falls in, by its hash: the same key always in the same one. ``shares`` sum to 1."""
    point = int(hashlib.sha256(key.encode("utf-8")).hexdigest()[:8], 16) / 16**8
    bound = 0.0
    for name, share in shares.items():
        bound += share
        if point < bound:
            return name
    return list(shares)[-1]


def plain(value: Any) -> str:
    """A cell as clean text: line feeds end lines, no trailing spaces, no control characters, one blank line in a row at most."""
    text = _CONTROLS.sub("", str(value).replace("\r\n", "\n").replace("\r", "\n"))
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def language_of(text: str) -> str:
    """``ru`` where at least three letters in ten are Cyrillic, else ``en``."""
    letters = sum(map(str.isalpha, text))
    return "ru" if letters and len(_CYRILLIC.findall(text)) / letters >= 0.3 else "en"
