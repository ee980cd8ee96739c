"""Sentences of prose, and windows of consecutive sentences that fit a verifier's length."""

from __future__ import annotations

import re

_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|al|fig|eq|no|dr|mr|mrs|st|approx)\.|\b[A-Z]\.)$", re.IGNORECASE)
_BOUNDARY = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[`*]*[A-Z0-9А-Я\"'`])|\n\s*\n|\n(?=\s*(?:[-*]|\d+[.)])\s)")


def sentences(text: str) -> list[str]:
    """Split ``text`` at sentence ends, blank lines and list items. Pieces are stripped, in order, never empty."""
    pieces: list[str] = []
    start = 0
    for boundary in _BOUNDARY.finditer(text):
        if not boundary.group().startswith("\n") and _ABBREVIATION.search(text[start : boundary.start()]):
            continue
        pieces.append(text[start : boundary.end()])
        start = boundary.end()
    pieces.append(text[start:])
    return [" ".join(piece.split()) for piece in pieces if piece.strip()]


def windows(text: str, words: int, overlap: int = 1) -> list[str]:
    """Runs of whole sentences of at most ``words`` words, each run repeating the last ``overlap`` sentences of the one before.

    A single sentence longer than ``words`` is a window of its own. Text without words gives one empty window.
    """
    parts = sentences(text)
    runs: list[str] = []
    start = 0
    while start < len(parts):
        end, size = start, 0
        while end < len(parts) and (end == start or size + len(parts[end].split()) <= words):
            size += len(parts[end].split())
            end += 1
        runs.append(" ".join(parts[start:end]))
        if end == len(parts):
            break
        start = max(start + 1, end - overlap)
    return runs or [""]
