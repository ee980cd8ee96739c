"""The questions that are answered: those on the notes, or those of the user's own collection that is searched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from curriculum.corpora.readers import Beir, read_answers, read_beir
from curriculum.errors import DataError
from curriculum.rag.settings import RagSettings
from curriculum.retrieval.passages import PROJECT
from curriculum.retrieval.settings import RetrievalSettings


def asked_questions(
    notes_questions: pd.DataFrame, settings: RagSettings, retrieval: RetrievalSettings, dataset: Callable[[str], Path]
) -> pd.DataFrame:
    """The questions on what ``settings.collection`` holds, of every split: question_id, note_id, documents, question, kind, answers, split.

    ``documents`` are the ids of the documents in which an answer may stand, ``note_id`` the first of them. ``dataset`` finds the local
    folder of a source.

    Raises:
        DataError: the collection is no folder under ``retrieval.collections``, or has no questions with answers.
    """
    if settings.collection == PROJECT:
        return notes_questions.assign(documents=[[note] for note in notes_questions["note_id"]])
    folders = {folder.name: folder for folder in map(dataset, retrieval.collections)}
    if settings.collection not in folders:
        raise DataError(
            f"rag.collection is '{settings.collection}', and the folders under retrieval.collections are {', '.join(sorted(folders)) or 'none'}: "
            f"name one of them, or '{PROJECT}'"
        )
    folder = folders[settings.collection]
    found = read_beir(folder)
    return collection_questions(found, read_answers(folder, set(found.queries["query_id"])))


def collection_questions(collection: Beir, answers: dict[str, list[str]]) -> pd.DataFrame:
    """The judged queries of ``collection`` that ``answers`` (accepted answers by query_id) lists, as rows of :func:`asked_questions`.

    A query with an empty list of answers is unanswerable. A query of two splits counts for the later one in the order train, dev, test,
    so that nothing is chosen on a test question.

    Raises:
        DataError: no query with answers is judged.
    """
    relevant = collection.qrels[(collection.qrels["grade"] > 0) & collection.qrels["query_id"].isin(list(answers))]
    if relevant.empty:
        raise DataError(f"no query of '{collection.name}' has both an answer in answers.jsonl and a relevant document in qrels; add some")
    later = {"train": 0, "dev": 1, "test": 2}
    texts = dict(zip(collection.queries["query_id"], collection.queries["text"], strict=True))
    rows = []
    for query, judged in relevant.groupby("query_id", sort=True):
        best = judged.sort_values("grade", ascending=False, kind="stable")
        documents, split = list(dict.fromkeys(best["doc_id"])), max(judged["split"], key=lambda name: later.get(name, -1))
        kind = "answerable" if answers[query] else "unanswerable"
        rows.append({
            "question_id": query, "note_id": documents[0], "documents": documents, "question": texts[query], "kind": kind,
            "answers": answers[query], "split": split,
        })  # fmt: skip
    return pd.DataFrame(rows)
