"""Search over the user's corpus, measured: on its own judgements, or on known items, with how far those can be trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from curriculum.artifacts import DirectoryArtifact, IndexArtifact
from curriculum.cells import Cells
from curriculum.corpora.documents import text_digest
from curriculum.corpora.readers import Beir, read_judgements
from curriculum.errors import DataError
from curriculum.ingest.known_items import LEAST_ITEMS, LEAST_WORDS, Item, KnownItems, choose_items, judgements, overlap
from curriculum.ingest.parts import read_batches
from curriculum.ingest.soundness import hit_rate, soundness
from curriculum.results import Identity, Metric, StudyResult
from curriculum.retrieval.bm25 import Hits, add_passages, remove_passages
from curriculum.retrieval.dense import Encoder
from curriculum.retrieval.hybrid import LEGS, HybridRetriever
from curriculum.retrieval.passages import contents
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.retrieval.tracks import COLUMNS, beir_track
from curriculum.rows.search import track_row
from curriculum.vector_search.kinds import vectors_of

_SEEN_WITH_80_PERCENT = 1.96 + 0.84  # standard errors: found by a two-sided 5% test in four of five repetitions
_LISTED = 200
_TOGETHER = 100  # queries that are searched before their hits are kept


@dataclass(frozen=True)
class Corpus:
    """What the assets made of the user's folder."""

    folder: Path
    documents: DirectoryArtifact
    passages: DirectoryArtifact
    index: IndexArtifact

    @property
    def name(self) -> str:
        """The collection."""
        return self.index.facts["name"]


def corpus_report(
    corpus: Corpus, encoder: Encoder, settings: RetrievalSettings, work: Path,
    *, seed: int, identities: list[Identity], progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """Both legs and every fusion over the whole corpus.

    ``work`` takes a copy of the index, in which known items lack their sentence, and what is finished: a killed run goes on from there.

    Raises:
        DataError: no judged test query, or too few documents that have a sentence of their own.
    """
    cells = Cells(work / "cells", progress)
    known = None if corpus.documents.facts["beir"] else _known_items(corpus, 2 * settings.max_queries, cells)
    queries, qrels = judgements(known.items) if known else read_judgements(corpus.folder, _ids(corpus))
    tracks = _sampled(Beir(corpus.name, pd.DataFrame(), queries, qrels), settings.max_queries)
    root = corpus.index.path
    if known:
        root = _taken_out(corpus, known, encoder, work)
        progress(f"{len(known.items)} known items taken out of a copy of the index")
    retriever = _Remembering.under(settings, root / "bm25", root / "dense", encoder).keeping(cells, progress)
    judged = _judged(corpus, tracks)
    result = track_row(corpus.name, retriever, judged, tracks, settings, seed=seed, identities=identities, progress=progress)
    trust = _trust(result, corpus.name, known)
    facts = corpus.documents.facts
    counts = {"documents": facts["documents"], "passages": corpus.passages.facts["passages"], "broken": facts["broken_count"]}
    more = [Metric(name=name, value=float(value), higher_is_better=name != "broken") for name, value in counts.items()]
    more += [Metric(name=row["measure"], value=row["value"], n=row["n"]) for row in trust]
    asked = tracks["query"].unique().tolist()
    more += [hit_rate(result), *_soundness(corpus, encoder, asked, seed, cells)]
    return result.model_copy(
        update={
            "study": "own_corpus_report", "metrics": [*result.metrics, *more], "remarks": [_said(known, counts), *result.remarks],
            "tables": {**result.tables, "trust": pd.DataFrame(trust), "files": _left_out(corpus.documents)},
        }
    )  # fmt: skip


class _Remembering(HybridRetriever):
    """Keeps the hits of many queries as they are found. Those of :meth:`search`, whose time is taken, are found anew each time."""

    _cells: Cells
    _progress: Callable[[str], None]

    def keeping(self, cells: Cells, progress: Callable[[str], None]) -> Self:
        """This retriever, which keeps hits in ``cells``."""
        self._cells, self._progress = cells, progress
        return self

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, Hits]:
        """Each leg's own hits, by its name."""
        found: dict[str, Hits] = {leg: [] for leg in LEGS}
        for at in range(0, len(queries), _TOGETHER):
            some = queries[at : at + _TOGETHER]
            known = self._cells.get(f"hits of {len(some)} queries", [some, k, collection], partial(super().legs, some, k, collection))
            for leg, hits in found.items():
                hits += [[(pid, score) for pid, score in own] for own in known[leg]]
            self._progress(f"{at + len(some)} of {len(queries)} queries searched")
        return found

    def search(self, queries: list[str], k: int, collection: str = "project") -> Hits:
        """For each query the ``k`` best fused (passage_id, score), best first."""
        return self.fused(super().legs(queries, max(k, self.depth), collection), k)


def _soundness(corpus: Corpus, encoder: Encoder, asked: list[str], seed: int, cells: Cells) -> list[Metric]:
    def compute() -> dict[str, Any]:
        found = soundness(corpus.index.path, corpus.passages.path, corpus.name, encoder, asked, seed=seed)
        return {"metrics": [metric.model_dump(mode="json") for metric in found]}

    return [Metric.model_validate(metric) for metric in cells.get("soundness of the index", [asked, seed], compute)["metrics"]]


def _ids(corpus: Corpus) -> set[str]:
    return {doc for batch in read_batches(corpus.documents.path, ["doc_id"]) for doc in batch["doc_id"]}


def _known_items(corpus: Corpus, count: int, cells: Cells) -> KnownItems:
    columns = ["passage_id", "collection", "doc_id", "title", "section", "text", "position"]
    found = cells.get("known items", count, lambda: asdict(choose_items(lambda: read_batches(corpus.passages.path, columns), count)))
    known = KnownItems(**{**found, "items": [Item(**item) for item in found["items"]]})
    tests = (judgements(known.items)[1]["split"] == "test").sum()
    if len(known.items) < LEAST_ITEMS or not tests:
        raise DataError(
            f"the corpus '{corpus.name}' gives {len(known.items)} known items, {tests} of them for the test, and needs {LEAST_ITEMS} and 1: "
            f"only a document with a sentence of {LEAST_WORDS} words or more that stands nowhere else is one; add documents, or queries "
            "and judgements in BEIR's layout. The index itself is made"
        )
    return known


def _sampled(data: Beir, count: int) -> pd.DataFrame:
    """The track, at most ``count`` queries a split, by hash."""
    tracks = pd.DataFrame(beir_track(data), columns=COLUMNS)
    order = tracks["query_id"].map(text_digest)
    return tracks.assign(order=order).sort_values("order").groupby("split").head(count)[COLUMNS]


def _taken_out(corpus: Corpus, known: KnownItems, encoder: Encoder, work: Path) -> Path:
    """A folder under ``work`` with both indexes, the passages of the known items replaced by what is left of them.

    The vectors are then searched exactly, whatever the kind of the index: what an approximate one loses is ``vector_recall``.
    """
    whole, unfinished = work / "taken out", work / "taken out.part"
    if whole.exists():
        return whole
    shutil.rmtree(unfinished, ignore_errors=True)
    left = pd.DataFrame([item.passage for item in known.items])
    bm25, dense = (unfinished / leg / corpus.name for leg in ("bm25", "dense"))
    shutil.copytree(corpus.index.path / "bm25" / corpus.name, bm25)
    remove_passages(bm25, left["passage_id"])
    add_passages(bm25, [left], append=True)
    dense.mkdir(parents=True)
    made = corpus.index.path / "dense" / corpus.name
    shutil.copyfile(made / "ids.json", dense / "ids.json")
    rows = {pid: row for row, pid in enumerate(json.loads((dense / "ids.json").read_text(encoding="utf-8")))}
    index = faiss.read_index(str(made / "index.faiss"))
    held = vectors_of(index)  # in place: there may be gigabytes
    held[[rows[pid] for pid in left["passage_id"]]] = encoder.passages(contents(left))
    flat = index
    if not isinstance(index, faiss.IndexFlat):
        flat = faiss.IndexFlatIP(index.d)
        flat.add(held)
    faiss.write_index(flat, str(dense / "index.faiss"))
    return unfinished.rename(whole)


def _judged(corpus: Corpus, tracks: pd.DataFrame) -> pd.DataFrame:
    """The passages that some query is judged on: all that scoring needs of the corpus."""
    wanted = {pid for ids in tracks["relevant_ids"] for pid in ids}
    columns = ["passage_id", "collection", "title", "section", "text"]
    return pd.concat([b[b["passage_id"].isin(wanted)] for b in read_batches(corpus.passages.path, columns)], ignore_index=True)


def _trust(result: StudyResult, name: str, known: KnownItems | None) -> list[dict[str, Any]]:
    """measure, value, n, reading: what bounds the belief in these numbers."""
    scores = result.per_example
    apart = (scores["ndcg_at_10__dense"] - scores["ndcg_at_10__bm25"]).to_numpy()
    detectable = float(_SEEN_WITH_80_PERCENT * apart.std(ddof=1) / len(apart) ** 0.5) if len(apart) > 1 else 1.0
    rows = [{
        "measure": "detectable_difference", "value": detectable, "n": len(apart),
        "reading": "the smallest true difference in nDCG@10 between two systems that so many queries would show in four of five samples",
    }]  # fmt: skip
    if known:
        shares = [overlap(item) for item in known.items]
        rows += [
            {
                "measure": "known_item_overlap", "value": float(np.mean(shares)), "n": len(shares),
                "reading": "share of a query's words that stand in its passage too: the higher, the more the track flatters BM25",
            },
            {
                "measure": "known_item_share", "value": known.fit / known.documents, "n": known.documents,
                "reading": "share of the documents that could be asked for: of the others the track says nothing",
            },
        ]  # fmt: skip
    return rows


def _said(known: KnownItems | None, counts: dict[str, int]) -> str:
    size = f"{counts['passages']} passages of {counts['documents']} documents; {counts['broken']} files or rows are broken and left out."
    if known is None:
        return f"{size} The queries and judgements are the folder's own; what nobody judged counts as wrong."
    return (
        f"{size} The folder has no judgements, so {len(known.items)} known items stand in: sentences of documents, taken out of them. "
        "They are an author's words and not a user's, and have one right passage each: they tell whether search works and which of two "
        "systems is better where the difference is above detectable_difference, and not how good it is for those who will ask. "
        "Fifty real queries with judgements in BEIR's layout say more."
    )


def _left_out(documents: DirectoryArtifact) -> pd.DataFrame:
    """path, reason: broken files and rows first, then what no parser reads; a list of 200 at most."""
    units = pq.read_table(documents.path / "units.parquet", columns=["key", "rows", "note", "problems"]).to_pylist()
    broken = [(unit["key"], said) for unit in units for said in unit["problems"]]
    left = [(unit["key"], unit["note"]) for unit in units if not unit["rows"] and not unit["problems"]]
    return pd.DataFrame([*broken, *left][:_LISTED], columns=["path", "reason"])
