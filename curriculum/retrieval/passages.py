"""Passages: documents cut at paragraph ends, and the known items whose summaries become queries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from curriculum.corpora.documents import text_digest
from curriculum.corpora.readers import Beir
from curriculum.errors import DataError
from curriculum.retrieval.settings import RetrievalSettings

PROJECT = "project"
COLUMNS = ["passage_id", "collection", "doc_id", "title", "text", "source", "position", "section", "known_item_query"]


def chunk(text: str, words: int) -> Iterator[tuple[str, str]]:
    """(section heading, passage) of a text: whole paragraphs of one section, together at most ``words`` words where they can be.

    A paragraph longer than that is cut between its lines or sentences, and neighbouring pieces then share one short line or
    sentence. A last passage of less than a quarter of ``words`` joins the one before it.
    """
    for heading, paragraphs in _sections(text):
        pieces = [piece for paragraph in paragraphs for piece in _pieces(paragraph, words)]
        groups: list[list[str]] = []
        for piece in pieces:
            if groups and _size(*groups[-1], piece) <= words:
                groups[-1].append(piece)
            else:
                groups.append([piece])
        if len(groups) > 1 and 4 * _size(*groups[-1]) < words:
            groups[-2:] = [groups[-2] + groups[-1]]
        yield from ((heading, "\n".join(group)) for group in groups)


def _sections(text: str) -> list[tuple[str, list[str]]]:
    """(heading, its paragraphs) in order; what stands before the first Markdown heading has the heading ""."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for paragraph in filter(None, (p.strip() for p in re.split(r"\n\s*\n", text))):
        first, _, rest = paragraph.partition("\n")
        heading = re.fullmatch(r"#{1,6}\s+(\S.*)", first)
        if heading:
            found.append((heading.group(1).strip(), []))
        body = rest.strip() if heading else paragraph
        if body:
            found[-1][1].append(body)
    return found


def _size(*texts: str) -> int:
    """Length in words, or in sevenths of a character count where that is more: code and tables have few blanks."""
    return sum(max(len(text.split()), len(text) // 7) for text in texts)


def _pieces(paragraph: str, words: int) -> Iterator[str]:
    """A paragraph, or where it is too long its runs of lines (of sentences, where it is one line)."""
    if _size(paragraph) <= words:
        yield paragraph
        return
    glue = "\n" if "\n" in paragraph else " "
    parts = paragraph.split("\n") if glue == "\n" else re.split(r"(?<=[.!?;])\s+", paragraph)
    held: list[str] = []
    for part in (run for long in parts for run in _runs(long, words)):
        if held and _size(*held, part) > words:
            yield glue.join(held)
            held = held[-1:] if 4 * _size(held[-1]) <= words and _size(held[-1], part) <= words else []
        held.append(part)
    yield glue.join(held)


def _runs(part: str, words: int) -> list[str]:
    """A line or sentence, or where it alone is too long its runs of words; one endless word is cut into characters."""
    if _size(part) <= words:
        return [part]
    runs: list[list[str]] = [[]]
    for word in (w[i : i + 7 * words] for w in part.split() for i in range(0, len(w), 7 * words)):
        if runs[-1] and _size(*runs[-1], word) > words:
            runs.append([])
        runs[-1].append(word)
    return [" ".join(run) for run in runs]


def choose_known_items(documents: pd.DataFrame, count: int) -> dict[str, str]:
    """doc_id -> summary for ``count`` documents, chosen by hash among those whose summary makes an honest query.

    It has at least six words; no other document says the same anywhere; it does not name its own function or class, which
    stands in the title of the passage and would be found by name; and something is left to find once it is removed.
    """
    lengths = documents["summary"].str.split().str.len()
    kinds = documents["kind"].isin(["function", "class", "method"])
    fit = documents[(lengths >= 6) & kinds]
    everything = "\0".join(_folded(text) for text in documents["text"])
    chosen: dict[str, str] = {}
    for document in fit.assign(order=[text_digest(d) for d in fit["doc_id"]]).sort_values("order").itertuples():
        if len(chosen) == count:
            break
        rest = without_summary(document.text, document.summary)
        own = re.search(rf"\b{re.escape(document.qualified_name.rsplit('.', 1)[-1])}\b", document.summary, re.IGNORECASE)
        if len(rest) >= 150 and not own and everything.count(_folded(document.summary)) == 1:
            chosen[document.doc_id] = document.summary
    return chosen


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def without_summary(text: str, summary: str) -> str:
    """``text`` with its first sentence, which ``summary`` holds on one line, removed; "" where it does not begin with it."""
    begins = re.match(r"[\W_]*" + r"\s+".join(re.escape(word) for word in summary.split()), text)
    return text[begins.end() :].strip() if begins else ""


def project_passages(notes: pd.DataFrame, documents: pd.DataFrame, settings: RetrievalSettings) -> pd.DataFrame:
    """The project's own collection: every note, every known item, then other documents by hash up to ``max_passages``.

    Raises:
        DataError: there is no text.
    """
    known = choose_known_items(documents, settings.known_items)
    rest = documents[~documents["doc_id"].isin(known)]
    rest = rest.assign(order=[text_digest(d) for d in rest["doc_id"]]).sort_values("order")
    wanted = pd.concat([notes, documents[documents["doc_id"].isin(known)]], ignore_index=True)
    rows = [row for document in wanted.itertuples() for row in _passages_of(document, known.get(document.doc_id, ""), settings)]
    for document in rest.itertuples():
        more = _passages_of(document, "", settings)
        if len(rows) + len(more) > settings.max_passages:
            break
        rows += more
    if not rows:
        raise DataError("no passages: the notes and the Python documentation are both empty")
    return pd.DataFrame(rows, columns=COLUMNS)


def _passages_of(document: Any, summary: str, settings: RetrievalSettings) -> list[dict[str, object]]:
    text = without_summary(document.text, summary) if summary else document.text
    return [
        _row(PROJECT, document.doc_id, document.title, passage, document.source, position, section, "" if position else summary)
        for position, (section, passage) in enumerate(chunk(text, settings.passage_words))
    ]


def beir_passages(sets: list[Beir]) -> pd.DataFrame:
    """One passage a document, uncut, as published scores are measured; each set is a collection of its own."""
    rows = [_row(s.name, d.doc_id, d.title, d.text, s.name, 0, "", "") for s in sets for d in s.corpus.itertuples()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(collection: str, doc_id: str, title: str, text: str, source: str, position: int, section: str, query: str) -> dict[str, object]:
    return {
        "passage_id": f"{collection}/{doc_id}#{position}", "collection": collection, "doc_id": doc_id, "title": title, "text": text,
        "source": source, "position": position, "section": section, "known_item_query": query,
    }


def contents(passages: pd.DataFrame) -> list[str]:
    """What is indexed and encoded of each passage: its title (and section), then its text, as BEIR's flat indexes hold them."""
    columns = zip(passages["title"], passages["section"], passages["text"], strict=True)
    return [f"{title}{': ' if title and section else ''}{section}\n{text}".strip() for title, section, text in columns]
