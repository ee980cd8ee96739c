"""Known items of a corpus without judgements: documents whose first sentence, taken out of its passage, is a query for it."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from curriculum.corpora.documents import first_sentence, split_of, text_digest
from curriculum.retrieval.passages import contents, without_summary

LEAST_WORDS, LEAST_CHARACTERS, LEAST_ITEMS = 6, 100, 4


@dataclass(frozen=True, order=True)
class Item:
    """A document that can be asked for. ``passage`` is its first passage without the sentence; items are in an order by hash."""

    order: str
    query: str
    passage: dict[str, Any]

    @property
    def doc_id(self) -> str:
        """The document that is to be found."""
        return self.passage["doc_id"]


@dataclass(frozen=True)
class KnownItems:
    """The chosen items, of ``fit`` documents that begin with a sentence long enough, of ``documents`` in all."""

    items: list[Item]
    fit: int
    documents: int


def choose_items(batches: Callable[[], Iterator[pd.DataFrame]], count: int) -> KnownItems:
    """At most ``count`` items, by hash. ``batches`` reads the passages anew each time: the text is never in memory whole.

    A sentence makes an honest query where it has six words, stands nowhere else in the corpus (titles too), and leaves a hundred
    characters in its passage that can be found.
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
    for batch in batches:
        for passage in batch[batch["position"] == 0].to_dict("records"):
            seen["documents"] += 1
            sentence = first_sentence(passage["text"])
            rest = without_summary(passage["text"], sentence) if sentence else ""
            if len(sentence.split()) >= LEAST_WORDS and len(rest) >= LEAST_CHARACTERS:
                seen["fit"] += 1
                yield Item(text_digest(passage["doc_id"]), sentence, passage | {"text": rest})


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
