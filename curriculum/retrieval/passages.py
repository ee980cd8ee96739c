"""Passages: documents cut at paragraph ends, and the known items whose summaries become queries."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd

from curriculum.corpora.documents import text_digest
from curriculum.corpora.readers import Beir
from curriculum.errors import DataError
from curriculum.retrieval.settings import RetrievalSettings

PROJECT = "project"
COLUMNS = ["passage_id", "collection", "doc_id", "title", "text", "source", "position", "section", "known_item_query"]


def chunk(text: str, words: int) -> Iterator[tuple[str, str]]:
    """(section heading, passage) of a text: paragraphs are joined until they pass ``words`` words; a heading starts anew."""
    section, held = "", []
    for paragraph in filter(None, (p.strip() for p in re.split(r"\n\s*\n", text))):
        heading = re.match(r"#+\s+(.*)", paragraph)
        if heading:
            yield from _joined(section, held)
            section, held = heading.group(1).strip(), []
            continue
        for piece in _pieces(paragraph, 2 * words):
            held.append(piece)
            if sum(len(p.split()) for p in held) >= words:
                yield from _joined(section, held)
                held = []
    yield from _joined(section, held)


def _joined(section: str, held: list[str]) -> Iterator[tuple[str, str]]:
    if held:
        yield section, "\n".join(held)


def _pieces(paragraph: str, words: int) -> Iterator[str]:
    """A paragraph, or where it is very long its consecutive runs of ``words`` words."""
    parts = paragraph.split()
    if len(parts) <= words:
        yield paragraph
        return
    for start in range(0, len(parts), words):
        yield " ".join(parts[start : start + words])


def choose_known_items(documents: pd.DataFrame, count: int) -> dict[str, str]:
    """doc_id -> summary for ``count`` documents, chosen by hash among those whose summary is telling and their own.

    A summary of fewer than six words, one that several documents share, or one that is nearly the whole text is no query.
    """
    lengths = documents["summary"].str.split().str.len()
    rest = documents["text"].str.len() - documents["summary"].str.len()
    unique = ~documents["summary"].str.lower().duplicated(keep=False)
    fit = documents[(lengths >= 6) & (rest >= 150) & unique & documents["kind"].isin(["function", "class", "method"])]
    chosen = fit.assign(order=[text_digest(d) for d in fit["doc_id"]]).sort_values("order").head(count)
    return dict(zip(chosen["doc_id"], chosen["summary"], strict=True))


def without_summary(text: str, summary: str) -> str:
    """``text`` with its first sentence, which ``summary`` holds on one line, removed."""
    pattern = r"\s+".join(re.escape(word) for word in summary.split())
    return re.sub(pattern, "", text, count=1).strip()


def project_passages(notes: pd.DataFrame, documents: pd.DataFrame, settings: RetrievalSettings) -> pd.DataFrame:
    """The project's own collection: every note, the known items, then other documents by hash up to ``max_passages``.

    Raises:
        DataError: there is no text.
    """
    known = choose_known_items(documents, settings.known_items)
    order = [text_digest(d) for d in documents["doc_id"]]
    rest = documents.assign(known=documents["doc_id"].isin(known), order=order).sort_values(["known", "order"], ascending=[False, True])
    rows: list[dict[str, object]] = []
    for document in pd.concat([notes, rest], ignore_index=True).itertuples():
        if len(rows) >= settings.max_passages:
            break
        summary = known.get(document.doc_id, "")
        text = without_summary(document.text, summary) if summary else document.text
        for position, (section, passage) in enumerate(chunk(text, settings.passage_words)):
            query = summary if position == 0 else ""
            rows.append(_row(PROJECT, document.doc_id, document.title, passage, document.source, position, section, query))
    if not rows:
        raise DataError("no passages: the notes and the Python documentation are both empty")
    return pd.DataFrame(rows, columns=COLUMNS)


def beir_passages(sets: list[Beir]) -> pd.DataFrame:
    """One passage a document, uncut, as published scores are measured; each set is a collection of its own."""
    rows = [
        _row(s.name, d.doc_id, d.title, d.text, s.name, 0, "", "") for s in sets for d in s.corpus.itertuples()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(collection: str, doc_id: str, title: str, text: str, source: str, position: int, section: str, query: str) -> dict[str, object]:
    return {
        "passage_id": f"{collection}/{doc_id}#{position}", "collection": collection, "doc_id": doc_id, "title": title, "text": text,
        "source": source, "position": position, "section": section, "known_item_query": query,
    }


def contents(passages: pd.DataFrame) -> list[str]:
    """What is indexed and encoded of each passage: its title, then its text."""
    return [f"{title}\n{text}".strip() for title, text in zip(passages["title"], passages["text"], strict=True)]
