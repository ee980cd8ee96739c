"""A user's own corpus, measured as it lies in a folder: by its own judgements, or by known items made of its text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from curriculum.corpora.documents import text_digest
from curriculum.corpora.readers import Beir, read_beir, read_documents
from curriculum.errors import DataError
from curriculum.ingest.known_items import LEAST_ITEMS, LEAST_WORDS, choose_items, judgements
from curriculum.results import Identity, StudyResult
from curriculum.retrieval.bm25 import build_bm25
from curriculum.retrieval.dense import Encoder, build_dense, embed_passages
from curriculum.retrieval.hybrid import HybridRetriever
from curriculum.retrieval.passages import beir_passages, chunk
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.retrieval.tracks import COLUMNS, beir_track
from curriculum.rows.search import track_row


def read_corpus(name: str, folder: Path, settings: RetrievalSettings) -> Beir:
    """The corpus as a retrieval set: a BEIR folder is read as it is, any other by :func:`known_items`.

    Raises:
        DataError: the folder has no text, or what :func:`known_items` and the readers refuse.
    """
    if any((folder / file).exists() for file in ("corpus.jsonl", "corpus.jsonl.gz")):
        found = read_beir(folder)
        return Beir(name, found.corpus, found.queries, found.qrels)
    return known_items(name, read_documents(folder), settings)


def known_items(name: str, documents: pd.DataFrame, settings: RetrievalSettings) -> Beir:
    """Passages of ``documents``, and for every document one of whose sentences stands nowhere else that sentence as a query.

    The sentence is taken out of its passage, which is then the one to be found. Half of the queries are for development, by hash.

    Raises:
        DataError: too few documents have a sentence of their own.
    """
    rows: list[dict[str, object]] = []
    for document in documents.assign(order=documents["doc_id"].map(text_digest)).sort_values("order").itertuples():
        pieces = list(enumerate(chunk(document.text, settings.passage_words)))
        if len(rows) + len(pieces) > settings.max_passages:
            break
        rows += [{"doc_id": document.doc_id, "position": at, "title": section, "section": "", "text": text} for at, (section, text) in pieces]
    passages = pd.DataFrame(rows, columns=["doc_id", "position", "title", "section", "text"])
    items = choose_items(lambda: iter([passages]), 2 * settings.max_queries).items
    queries, qrels = judgements(items)
    if len(queries) < LEAST_ITEMS or not (qrels["split"] == "test").any():
        raise DataError(
            f"the corpus '{name}' gives {len(queries)} known items and needs {LEAST_ITEMS}, one of them for the test: only a document "
            f"with a sentence of {LEAST_WORDS} words or more that stands nowhere else is one; add documents, or give the folder BEIR's layout"
        )
    passages["doc_id"] = passages["doc_id"] + ":" + passages["position"].astype(str)
    asked = {item.doc_id: f"{item.doc_id}:{item.passage['position']}" for item in items}
    left = {asked[item.doc_id]: item.passage["text"] for item in items}
    passages["text"] = passages["doc_id"].map(left).fillna(passages["text"])
    return Beir(name, passages, queries, qrels.assign(doc_id=qrels["doc_id"].map(asked)))


def corpus_row(
    name: str, folder: Path, model: Path, settings: RetrievalSettings, work: Path,
    *, device: str, checkpoints: Path, seed: int, identities: list[Identity], progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """The corpus indexed by BM25 and by the encoder in the folder ``model``, under ``work``, and both legs and every fusion measured on its queries.

    Raises:
        DataError: as :func:`read_corpus`.
    """
    corpus = read_corpus(name, folder, settings)
    passages = beir_passages([corpus])
    tracks = pd.DataFrame(beir_track(corpus), columns=COLUMNS)
    order = tracks["query_id"].map(text_digest)
    tracks = tracks.assign(order=order).sort_values("order").groupby("split").head(settings.max_queries)[COLUMNS]
    encoder = Encoder(model, settings, device)
    build_bm25(passages, settings, work / "bm25")
    build_dense(embed_passages(passages, encoder, settings, work / "vectors", checkpoints, progress), work / "dense")
    retriever = HybridRetriever.under(settings, work / "bm25", work / "dense", encoder)
    result = track_row(name, retriever, passages, tracks, settings, seed=seed, identities=identities, progress=progress)
    remark = f"{len(passages)} passages and {len(tracks)} queries of the folder {folder.name}."
    return result.model_copy(update={"study": f"own_corpus_row/{name}", "remarks": [remark, *result.remarks]})
