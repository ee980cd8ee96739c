"""Two searches against one on questions that need two passages: evidence found, and answers read, among equally many passages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from curriculum.errors import DataError
from curriculum.multi_hop.hops import WAYS, Asking, Hops, search_again
from curriculum.multi_hop.report import CONTROL, SINGLE, report
from curriculum.multi_hop.settings import MultiHopSettings
from curriculum.rag.answerers import Answerer
from curriculum.reading.metrics import f1
from curriculum.reranking.mining import Retriever
from curriculum.results import Identity, StudyResult

TRACK = "two-hop"


@dataclass(frozen=True)
class Asked:
    """Queries of one split: rows of the two-hop track, and the passages of each of a query's two places."""

    rows: pd.DataFrame
    places: list[list[set[str]]]

    @property
    def queries(self) -> list[str]:
        return self.rows["query"].astype(str).tolist()

    def found(self, place: int, shown: Sequence[str]) -> float:
        """The share of the two places of a query that a passage of ``shown`` holds."""
        return float(np.mean([bool(ids & set(shown)) for ids in self.places[place]]))


def multi_hop_study(
    passages: pd.DataFrame,
    tracks: pd.DataFrame,
    questions: pd.DataFrame,
    retriever: Retriever,
    asking: Asking,
    answerer: Answerer,
    settings: MultiHopSettings,
    *,
    seed: int,
    identities: list[Identity],
    progress: Callable[[str], None],
) -> StudyResult:
    """Search once and twice for the queries of the two-hop track, and show ``settings.shown`` passages either way.

    How many of them the first search gives is chosen on dev queries, a way of asking at a time; the test queries are reported.

    Raises:
        DataError: the two-hop track has no dev or no test queries.
    """
    dev, test = (asked(passages, tracks, split) for split in ("dev", "test"))
    collection, gold = test.rows.iloc[0]["collection"], {f"{TRACK}/{q.question_id}": list(q.answers) for q in questions.itertuples()}
    hops, kept, curves = dict[str, Hops](), {SINGLE: settings.shown}, list[dict[str, object]]()
    for way in WAYS:
        on_dev, hops[way] = (_twice(way, part, retriever, asking, settings, collection) for part in (dev, test))
        scores = {count: _evidence(dev, on_dev, count, settings.shown) for count in range(settings.shown, 0, -1)}
        kept[way] = max(scores, key=lambda count: scores[count])  # of equals the first: one search
        curves += [{"way": way, "kept_of_first": count, "dev_evidence": value} for count, value in scores.items()]
        best, alone = scores[kept[way]], scores[settings.shown]
        progress(f"{way}: {kept[way]} of {settings.shown} from the first search, dev evidence {best:.3f}, {alone:.3f} of it alone")
    hops[SINGLE] = Hops(hops[WAYS[0]].first, [[] for _ in test.queries])
    hops[CONTROL] = search_again("sentence", test.queries, hops[SINGLE].first, asking, retriever, settings, collection, stranger=True)
    rows = _rows(test, hops, kept, settings, asking, answerer, gold)
    progress(f"{len(test.queries)} test queries answered from {settings.shown} passages")
    return report(rows, pd.DataFrame(curves), kept, settings, seed=seed, identities=identities)


def asked(passages: pd.DataFrame, tracks: pd.DataFrame, split: str) -> Asked:
    """The two-hop queries of ``split``, with the passages of each of their two notes that hold the place."""
    rows = tracks[(tracks["track"] == TRACK) & (tracks["split"] == split)].reset_index(drop=True)
    if rows.empty:
        raise DataError(f"the track '{TRACK}' has no {split} queries; materialise retrieval_tracks with two-hop questions")
    note = dict(zip(passages["passage_id"], passages["doc_id"], strict=True))
    places = []
    for ids in rows["relevant_ids"]:
        by_note: dict[str, set[str]] = {}
        for passage in ids:
            by_note.setdefault(note[passage], set()).add(passage)
        places.append(list(by_note.values()))
    return Asked(rows, places)


def _twice(way: str, part: Asked, retriever: Retriever, asking: Asking, settings: MultiHopSettings, collection: str) -> Hops:
    first = retriever.search(part.queries, settings.depth, collection)
    return search_again(way, part.queries, first, asking, retriever, settings, collection)


def _evidence(part: Asked, hops: Hops, kept: int, shown: int) -> float:
    """Mean over questions of the share of their places shown; the phrasings of a question are one unit."""
    found = pd.Series([part.found(place, hops.shown(place, kept, shown)) for place in range(len(part.rows))])
    return float(found.groupby(part.rows["group"].to_numpy()).mean().mean())


def _rows(
    test: Asked, hops: dict[str, Hops], kept: dict[str, int], settings: MultiHopSettings, asking: Asking, answerer: Answerer,
    gold: dict[str, list[str]],
) -> pd.DataFrame:  # fmt: skip
    """A row a query: evidence of every way; of the second searches alone after the own and after a stranger's passage; F1 of what is read."""
    table = test.rows[["query_id", "query", "kind", "group"]].rename(columns={"query_id": "example_id"}).copy()
    for way, count in kept.items():
        shown = [hops[way].shown(place, count, settings.shown) for place in range(len(table))]
        table[f"evidence__{way}"] = [test.found(place, ids) for place, ids in enumerate(shown)]
        table[f"both__{way}"] = (table[f"evidence__{way}"] == 1).astype(float)
        drafts = answerer.answer(test.queries, [[asking.texts[i] for i in ids] for ids in shown])
        table[f"answer__{way}"] = [draft.text for draft in drafts]
        table[f"f1__{way}"] = [f1(draft.text, gold[group]) for draft, group in zip(drafts, table["group"], strict=True)]
    for name, way in (("own", "sentence"), (CONTROL, CONTROL)):
        table[f"second__{name}"] = [test.found(place, hops[way].shown(place, 0, settings.shown)) for place in range(len(table))]
    return table
