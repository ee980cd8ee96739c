"""Retrieval tracks: queries with graded passages, from the notes' questions, from known items, and from BEIR qrels."""

from __future__ import annotations

from typing import Any

import pandas as pd

from curriculum.corpora.documents import split_of, text_digest
from curriculum.corpora.readers import Beir
from curriculum.errors import DataError
from curriculum.retrieval.passages import PROJECT

COLUMNS = ["track", "collection", "query_id", "query", "split", "kind", "relevant_ids", "grades", "doc_ids", "group"]
ANSWERS, HELPS = 2, 1


def notes_track(passages: pd.DataFrame, questions: pd.DataFrame) -> list[dict[str, Any]]:
    """One query a phrasing of each answerable question. A passage with the answer has grade 2, its section's others 1.

    The questions of the training notes are used for development: retrieval trains nothing on them.
    """
    own = passages[passages["source"] == "notes"]
    rows = []
    for question in questions[questions["kind"] == "answerable"].itertuples():
        note = own[own["doc_id"] == question.note_id]
        hit = note["text"].map(lambda text, answers=question.answers: any(a in text for a in answers))
        section = note["section"].isin(set(note.loc[hit, "section"]))
        graded = [(pid, ANSWERS) for pid in note.loc[hit, "passage_id"]]
        graded += [(pid, HELPS) for pid in note.loc[section & ~hit, "passage_id"]]
        split = "test" if question.split == "test" else "dev"
        for number, text in enumerate([question.question, *question.phrasings]):
            if hit.any():
                name = f"notes/{question.question_id}"
                rows.append(_row("notes", PROJECT, f"{name}/{number}", text, split, question.difficulty, graded, group=name))
    return rows


def two_hop_track(passages: pd.DataFrame, questions: pd.DataFrame) -> list[dict[str, Any]]:
    """One query a phrasing of each two-hop question. Passages of the place that answers have grade 2, of the other place 1.

    A question of which the cutting left either place in no passage is left out: it could not be answered from passages.
    """
    own = passages[passages["source"] == "notes"]
    rows = []
    for question in questions.itertuples():
        grades: dict[str, int] = {}
        places = list(zip(question.note_ids, question.spans, strict=True))
        found = [_holding(own, note, span) for note, span in places]
        for (_, span), ids in zip(places, found, strict=True):
            grade = ANSWERS if any(answer in span for answer in question.answers) else HELPS
            grades |= {pid: max(grade, grades.get(pid, 0)) for pid in ids}
        split = "test" if question.split == "test" else "dev"
        for number, text in enumerate([question.question, *question.phrasings]):
            if all(found):
                name = f"two-hop/{question.question_id}"
                rows.append(_row("two-hop", PROJECT, f"{name}/{number}", text, split, question.kind, list(grades.items()), group=name))
    return rows


def _holding(passages: pd.DataFrame, note: str, span: str) -> list[str]:
    """The passages of a note that hold a span; one that was cut is where most of its words in a row are."""
    own = passages[passages["doc_id"] == note]
    words = span.split()
    for size in range(len(words), max(1, len(words) // 2) - 1, -1):
        runs = [" ".join(words[i : i + size]) for i in range(len(words) - size + 1)]
        ids = own.loc[own["text"].map(lambda text, runs=runs: any(run in text for run in runs)), "passage_id"]
        if len(ids):
            return ids.tolist()
    return []


def known_item_track(passages: pd.DataFrame) -> list[dict[str, Any]]:
    """One query a known item: its summary, which its passage lost. The item's first passage has grade 2, its next ones 1."""
    own = passages[passages["collection"] == PROJECT]
    by_document = {doc: group["passage_id"].tolist() for doc, group in own.groupby("doc_id")}
    rows = []
    for item in own[own["known_item_query"] != ""].itertuples():
        ids = by_document[item.doc_id]
        graded = [(ids[0], ANSWERS), *((pid, HELPS) for pid in ids[1:3])]
        split = split_of(f"split of {item.doc_id}", {"dev": 0.5, "test": 0.5})  # salted: the items were chosen by hash
        rows.append(_row("known-item", PROJECT, f"known-item/{item.doc_id}", item.known_item_query, split, item.source, graded))
    return rows


def beir_track(data: Beir) -> list[dict[str, Any]]:
    """The queries of a BEIR set; its train split serves for development."""
    texts = dict(zip(data.queries["query_id"], data.queries["text"], strict=True))
    rows = []
    for (split, query), group in data.qrels[data.qrels["grade"] > 0].groupby(["split", "query_id"]):
        graded = [(f"{data.name}/{doc}#0", int(grade)) for doc, grade in zip(group["doc_id"], group["grade"], strict=True)]
        side = "test" if split == "test" else "dev"
        rows.append(_row(data.name, data.name, f"{data.name}/{split}/{query}", texts[query], side, "beir", graded))
    return rows


def build_tracks(
    passages: pd.DataFrame, questions: pd.DataFrame, two_hop: pd.DataFrame, sets: list[Beir], max_queries: int
) -> pd.DataFrame:
    """Every track, at most ``max_queries`` a track and split, chosen by hash.

    ``group`` is the question that a query phrases: its phrasings are kept together, and an interval must resample questions.

    Raises:
        DataError: no query has a relevant passage.
    """
    own = [*notes_track(passages, questions), *two_hop_track(passages, two_hop), *known_item_track(passages)]
    rows = [*own, *(row for one in sets for row in beir_track(one))]
    if not rows:
        raise DataError("no query has a relevant passage; check that the questions' notes are among the passages")
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["order"] = [text_digest(group) for group in table["group"]]
    kept = table.sort_values(["order", "query_id"]).groupby(["track", "split"]).head(max_queries)
    return kept.sort_values("query_id", ignore_index=True)[COLUMNS]


def _row(
    track: str, collection: str, query_id: str, query: str, split: str, kind: str, graded: list[tuple[str, int]], group: str = ""
) -> dict[str, Any]:
    ids = [pid for pid, _ in graded]
    documents = sorted({pid.removeprefix(f"{collection}/").rsplit("#", 1)[0] for pid in ids})
    return {
        "track": track, "collection": collection, "query_id": query_id, "query": query, "split": split, "kind": kind,
        "relevant_ids": ids, "grades": [grade for _, grade in graded], "doc_ids": documents,
        "group": group or query_id,
    }


def qrels(tracks: pd.DataFrame) -> dict[str, dict[str, int]]:
    """query_id -> {passage_id: grade}."""
    return {
        row.query_id: {pid: int(g) for pid, g in zip(row.relevant_ids, row.grades, strict=True)} for row in tracks.itertuples()
    }
