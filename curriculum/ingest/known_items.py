"""Known items of a corpus without judgements: documents one of whose sentences, taken out of its passage, is a query for it."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from curriculum.corpora.documents import split_of, text_digest
from curriculum.grounding.sentences import sentences
from curriculum.retrieval.passages import contents

LEAST_WORDS, MOST_WORDS, LEAST_CHARACTERS, LEAST_ITEMS = 6, 40, 100, 4
_PROSE = re.compile(r"[\"'(]?\w.*[.!?][\"')]*", re.DOTALL)  # not a heading, a row of a table or a piece of code


@dataclass(frozen=True, order=True)
class Item:
    """A document that can be asked for. ``passage`` is one of its passages without the sentence; items are in an order by hash."""

    order: str
    query: str
    passage: dict[str, Any]

    @property
    def doc_id(self) -> str:
        """The document that is to be found."""
        return self.passage["doc_id"]


@dataclass(frozen=True)
class KnownItems:
    """The chosen items, of ``fit`` documents that have a sentence long enough, of ``documents`` in all."""

    items: list[Item]
    fit: int
    documents: int


def choose_items(batches: Callable[[], Iterator[pd.DataFrame]], count: int) -> KnownItems:
    """At most ``count`` items, by hash. ``batches`` reads the passages anew each time: the text is never in memory whole.

    A sentence makes an honest query where it has 6 to 40 words, stands nowhere else in the corpus (titles too), and leaves a hundred
    characters in its passage that can be found. Of a document's passages that hold one, a hash chooses.
    """
    seen = {"fit": 0, "documents": 0}
    candidates = heapq.nsmallest(2 * count, _candidates(batches(), seen))  # half of them to spare, for sentences that stand twice
    times = dict.fromkeys((_folded(item.query) for item in candidates), 0)
    for batch in batches():
        everything = "\0".join(map(_folded, contents(batch)))
        for sentence in times:
            times[sentence] += everything.count(sentence)
    alone = [item for item in candidates if times[_folded(item.query)] == 1]
    return KnownItems(alone[:count], seen["fit"], seen["documents"])


def _candidates(batches: Iterator[pd.DataFrame], seen: dict[str, int]) -> Iterator[Item]:
    """One of each document that has any; the passages of a document stand together."""
    passages = (passage for batch in batches for passage in batch.to_dict("records"))
    for doc_id, own in groupby(passages, key=lambda passage: passage["doc_id"]):
        seen["documents"] += 1
        for passage in sorted(own, key=lambda passage: text_digest(f"{doc_id}:{passage['position']}")):
            sentence, rest = _taken_out(passage["text"])
            if sentence:
                seen["fit"] += 1
                yield Item(text_digest(doc_id), sentence, passage | {"text": rest})
                break


def _taken_out(text: str) -> tuple[str, str]:
    """The first sentence of prose that can be a query, on one line, and the text without it; ("", "") where there is none."""
    for sentence in sentences(text):
        if LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS and _PROSE.fullmatch(sentence):
            before, _, after = _parted(text, sentence)
            rest = " ".join(part for part in (before.strip(), after.strip()) if part)
            if len(rest) >= LEAST_CHARACTERS:
                return sentence, rest
    return "", ""


def _parted(text: str, sentence: str) -> tuple[str, str, str]:
    found = re.search(r"\s+".join(map(re.escape, sentence.split())), text)
    assert found is not None, sentence  # it was cut out of this very text
    return text[: found.start()], found.group(), text[found.end() :]


def judgements(items: list[Item]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries (query_id, text) and qrels (split, query_id, doc_id, grade) of the items; half are for development, by hash."""
    queries = pd.DataFrame([{"query_id": item.doc_id, "text": item.query} for item in items], columns=["query_id", "text"])
    qrels = [
        {"split": split_of(f"split of {item.doc_id}", {"dev": 0.5, "test": 0.5}), "query_id": item.doc_id, "doc_id": item.doc_id, "grade": 1}
        for item in items
    ]
    return queries, pd.DataFrame(qrels, columns=["split", "query_id", "doc_id", "grade"])


def overlap(item: Item) -> float:
    """Share of the query's distinct words that what is left of the passage, or its title, holds too."""
    asked = _words(item.query)
    return len(asked & _words(f"{item.passage['title']} {item.passage['section']} {item.passage['text']}")) / max(1, len(asked))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
