"""What is searched and asked, apart from any chunking: the documents, the sections that answer, and the questions of each split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from curriculum.corpora.documents import text_digest
from curriculum.errors import DataError
from curriculum.reranking.settings import RerankerSettings
from curriculum.reranking.training import split_dev
from curriculum.retrieval.passages import COLUMNS, PROJECT, chunk, without_summary
from curriculum.retrieval.tracks import build_tracks
from curriculum.search_tuning.held_out import HeldOut
from curriculum.search_tuning.settings import SearchTuningSettings

UNCUT = 10**9  # words that no section has
DOCUMENT_COLUMNS = ["doc_id", "title", "text", "source", "known_item_query"]


def searched_documents(passages: pd.DataFrame, notes: pd.DataFrame, documents: pd.DataFrame) -> pd.DataFrame:
    """The documents that the project's ``passages`` were cut from, in their order and without what known items lost.

    Every chunking cuts these: one that filled a number of passages instead would search fewer documents the finer it cuts.

    Raises:
        DataError: a passage is of a document that is in neither corpus.
    """
    own = passages[passages["collection"] == PROJECT].drop_duplicates("doc_id")[["doc_id", "title", "source", "known_item_query"]]
    texts = pd.concat([notes, documents]).drop_duplicates("doc_id").set_index("doc_id")["text"]
    unknown = own.loc[~own["doc_id"].isin(texts.index), "doc_id"]
    if len(unknown):
        raise DataError(f"{len(unknown)} documents of passages are in no corpus, {unknown.iloc[0]} among them; materialise passages again")
    cut = [without_summary(texts[doc], known) if known else texts[doc] for doc, known in zip(own["doc_id"], own["known_item_query"], strict=True)]
    return own.assign(text=cut).reset_index(drop=True)[DOCUMENT_COLUMNS]


def cut(documents: pd.DataFrame, words: int) -> pd.DataFrame:
    """The passages of ``documents`` of at most ``words`` words, as the project cuts its own."""
    rows = [
        (f"{PROJECT}/{d.doc_id}#{position}", PROJECT, d.doc_id, d.title, text, d.source, position, section, "" if position else d.known_item_query)
        for d in documents.itertuples()
        for position, (section, text) in enumerate(chunk(d.text, words))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def places(documents: pd.DataFrame) -> pd.DataFrame:
    """The sections of ``documents``, uncut, as passages; sections of one document under one heading are one place."""
    whole = cut(documents, UNCUT)
    how = {name: "first" for name in COLUMNS if name not in ("doc_id", "section")} | {"text": "\n".join}
    return whole.groupby(["doc_id", "section"], sort=False, as_index=False).agg(how)[COLUMNS]


def places_of(passages: pd.DataFrame, whole: pd.DataFrame) -> dict[str, str]:
    """passage_id -> the id of the place (a row of ``whole``) that it was cut from."""
    known = {(row.doc_id, row.section): row.passage_id for row in whole.itertuples()}
    return {row.passage_id: known[row.doc_id, row.section] for row in passages.itertuples()}


def trained_documents(tracks: pd.DataFrame, settings: RerankerSettings, seed: int) -> set[str]:
    """The documents, of each query the first, that the reranker's training queries ask about: on these its scores would flatter it."""
    dev = tracks[tracks["split"] == "dev"]
    return set() if dev.empty else {str(ids[0]) for ids in split_dev(dev, settings, seed)[1]["doc_ids"]}


def split_questions(
    whole: pd.DataFrame, questions: pd.DataFrame, two_hop: pd.DataFrame, trained: set[str], settings: SearchTuningSettings, record: Path
) -> tuple[pd.DataFrame, HeldOut]:
    """The dev questions and the sealed test questions, a phrasing each, judged on the places of :func:`places`.

    The judgements are those of the project's tracks, on uncut sections: they are made from the source and are the same for every
    chunking, so that no chunking can lose a question or change what there is to find. ``record``: as of :class:`HeldOut`.

    Raises:
        DataError: a split has no questions.
    """
    tracks = build_tracks(whole, questions, two_hop, [], UNCUT)
    tracks = tracks.assign(order=tracks["query_id"].map(text_digest)).sort_values("order").drop_duplicates("group")
    tracks = tracks.assign(order=tracks["group"].map(text_digest)).sort_values("order")
    unseen = tracks[(tracks["split"] == "dev") & ~tracks["doc_ids"].map(lambda ids: ids[0] in trained)]
    sides = {"dev": (unseen, settings.dev_questions), "test": (tracks[tracks["split"] == "test"], settings.test_questions)}
    chosen = {
        name: rows.groupby("track").head(most).sort_values(["track", "query_id"], ignore_index=True).drop(columns="order")
        for name, (rows, most) in sides.items()
    }
    for name, rows in chosen.items():
        if rows.empty:
            raise DataError(f"there are no {name} questions to tune search on; of dev, the reranker leaves those that reranker.tuning_share keeps")
    sealed = HeldOut(chosen["test"], record)
    sealed.refuse(chosen["dev"])
    return chosen["dev"], sealed
