"""Passages of documents, each with its place: which file, where in the text, on which page, line or row.

The passages of the project's own notes (``retrieval.passages.chunk``) join what they cut with blanks of their own. A citation that opens
a user's file needs the stretch of text itself, so here a passage is ``text[start:end]``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curriculum.corpora.documents import text_digest

SCHEMA = pa.schema([
    ("passage_id", pa.string()), ("collection", pa.string()), ("doc_id", pa.string()), ("title", pa.string()), ("text", pa.string()),
    ("source", pa.string()), ("position", pa.int32()), ("section", pa.string()), ("path", pa.string()), ("start", pa.int64()),
    ("end", pa.int64()), ("place", pa.string()), ("digest", pa.string()),
])  # fmt: skip
_PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+")
_HEADING = re.compile(r"#{1,6}[ \t]+(\S[^\n]*)(?:\n|\Z)")
_GAPS = (re.compile(r"\s*\n\s*"), re.compile(r"(?<=[.!?;])\s+"), re.compile(r"\s+"))  # between lines, sentences, words
Span = tuple[int, int]


@dataclass(frozen=True)
class Cut:
    """A passage: ``text[start:end]`` of its document, under the heading ``section``."""

    section: str
    start: int
    end: int


def cut(text: str, words: int) -> Iterator[Cut]:
    """The passages of a text: whole paragraphs of one section, together at most ``words`` words where they can be.

    A paragraph that is longer is cut between lines, else sentences, else words; a passage that begins inside one repeats the line or
    sentence before it where that is short. A last passage of less than a quarter of ``words`` joins the one before it. Every letter
    of the text is in a passage or in the heading of one; a heading with nothing under it is a passage itself.
    """
    for section, heading, paragraphs in _sections(text):
        if not paragraphs:
            yield Cut("", *heading)
            continue
        spans: list[Span] = []
        for paragraph in paragraphs:
            _pack(text, list(_atoms(text, paragraph, words)), words, spans)
        if len(spans) > 1 and 4 * _size(text, spans[-1]) < words:
            spans[-2:] = [(spans[-2][0], spans[-1][1])]
        yield from (Cut(section, *span) for span in spans)


def _sections(text: str) -> Iterator[tuple[str, Span, list[Span]]]:
    """(heading, where it stands, the paragraphs under it); what comes before the first heading has the heading ""."""
    section, place, paragraphs = "", (0, 0), list[Span]()
    for found in _PARAGRAPH.finditer(text):
        start, end = found.span()
        heading = _HEADING.match(text, start, end)
        if heading:
            if paragraphs or section:
                yield section, place, paragraphs
            section, place, paragraphs, start = heading.group(1).strip(), _trimmed(text, heading.span()), [], heading.end()
        if text[start:end].strip():
            paragraphs.append(_trimmed(text, (start, end)))
    if paragraphs or section:
        yield section, place, paragraphs


def _trimmed(text: str, span: Span) -> Span:
    inside = text[span[0] : span[1]]
    return span[0] + len(inside) - len(inside.lstrip()), span[0] + len(inside.rstrip())


def _size(text: str, span: Span) -> int:
    """Length in words, or in sevenths of a character count where that is more: code and tables have few blanks."""
    return max(len(text[span[0] : span[1]].split()), (span[1] - span[0]) // 7)


def _atoms(text: str, span: Span, words: int, level: int = 0) -> Iterator[Span]:
    """A stretch that is short enough, or its lines, sentences or words; one endless word is cut into characters."""
    if _size(text, span) <= words:
        yield span
    elif level == len(_GAPS):
        step = 7 * words
        yield from ((at, min(at + step, span[1])) for at in range(span[0], span[1], step))
    else:
        at = span[0]
        for gap in _GAPS[level].finditer(text, *span):
            if gap.start() > at:
                yield from _atoms(text, (at, gap.start()), words, level + 1)
            at = gap.end()
        if at < span[1]:
            yield from _atoms(text, (at, span[1]), words, level + 1)


def _pack(text: str, atoms: list[Span], words: int, spans: list[Span]) -> None:
    """Add the stretches of one paragraph to the passages of its section: to the last one while there is room."""
    for number, atom in enumerate(atoms):
        if spans and _size(text, (spans[-1][0], atom[1])) <= words:
            spans[-1] = (spans[-1][0], atom[1])
            continue
        before = atoms[number - 1] if number else None
        short = before is not None and 4 * _size(text, before) <= words and _size(text, (before[0], atom[1])) <= words
        spans.append((before[0], atom[1]) if before is not None and short else atom)


def passages_of(document: dict[str, Any], collection: str, words: int) -> Iterator[dict[str, Any]]:
    """The passages of a row of the documents table; ``words`` 0 leaves the document whole, as published scores are measured."""
    text, line, at = document["text"], 1, 0
    pieces = cut(text, words) if words else [Cut("", *_trimmed(text, (0, len(text))))]
    for position, piece in enumerate(pieces):
        line += text.count("\n", at, piece.start) - text.count("\n", piece.start, at)
        at = piece.start
        row = {
            "passage_id": f"{collection}/{document['doc_id']}#{position}", "collection": collection, "doc_id": document["doc_id"],
            "title": document["title"], "text": text[piece.start : piece.end], "source": document["kind"], "position": position,
            "section": piece.section, "path": document["path"], "start": piece.start, "end": piece.end,
            "place": _place(document, piece.start, line),
        }  # fmt: skip
        yield row | {"digest": text_digest(f"{row['title']}\n{row['section']}\n{row['text']}")}


def _place(document: dict[str, Any], start: int, line: int) -> str:
    """What a reader who opens the file looks for."""
    if len(document["pages"]):
        return f"page {bisect_right(list(document['pages']), start)}"
    return document["place"] or (f"line {line}" if document["lines"] else "")
