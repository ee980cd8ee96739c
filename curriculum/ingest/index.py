"""Both indexes of a corpus, in the layout of ``search_index``, brought up to date from an earlier version. A killed run goes on where it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from curriculum.artifacts import DirectoryArtifact, IndexArtifact
from curriculum.code_version import code_version
from curriculum.ingest.parts import read_batches
from curriculum.ingest.vector_index import Change, build_vectors
from curriculum.retrieval.bm25 import Bm25Index, add_passages, remove_passages
from curriculum.retrieval.passages import contents
from curriculum.storage import digest_of
from curriculum.vector_search.kinds import Codes
from curriculum.vector_search.settings import VectorSearchSettings

COMMIT = 100_000  # passages that Lucene takes in before it writes them out: ten seconds' work
_ANEW = 0.5  # where more than this share is to be removed, a new index is less work
_COLUMNS = ["passage_id", "title", "section", "text", "digest"]


def build_index(
    passages: DirectoryArtifact, vectors: DirectoryArtifact, search: VectorSearchSettings, out: Path,
    *, previous: Callable[[str], Path | None], checkpoints: Path, progress: Callable[[str], None], codes: Codes | None = None,
) -> IndexArtifact:  # fmt: skip
    """``out/bm25/COLLECTION`` and ``out/dense/COLLECTION``, and ``out/passages.parquet``: what the lexical one holds.

    ``search`` chooses the kind of the dense one by the number of vectors; ``codes`` fills one of codes in faiss's place.
    ``previous`` finds an earlier index: its passages that changed or went are removed from a copy, and only new and changed ones added.
    Both are made in ``checkpoints`` and moved when they are whole.
    """
    name = passages.facts["name"]
    how = digest_of([[code_version(part) for part in (update_bm25, add_passages, contents)], version("pyserini"), name])[:20]
    earlier = previous(how)
    work = checkpoints / digest_of([how, earlier.name if earlier else ""])[:20]
    change = changed(passages.path, earlier)
    dense = build_vectors(vectors, search, work / "dense", change, codes=codes, progress=lambda line: progress(f"{name}: {line}"))
    progress(f"{name}: {vectors.facts['passages'][name]} vectors indexed ({dense['kinds'][name]})")
    counts = update_bm25(passages.path, change, work / "bm25" / name, lambda line: progress(f"{name}: {line}"))
    out.mkdir(parents=True, exist_ok=True)
    for leg in ("dense", "bm25"):
        shutil.move(work / leg, out / leg)
    table = pd.concat(read_batches(passages.path, ["passage_id", "digest"]), ignore_index=True)
    table.to_parquet(out / "passages.parquet", index=False)
    facts = {"name": name, "passage_words": passages.facts["words"], "dense": dense, "bm25": {**counts, "passages": {name: len(table)}}}
    return IndexArtifact(out, {**facts, "how": how})


def changed(passages: Path, earlier: Path | None) -> Change:
    """The passages against those of an ``earlier`` index."""
    gone: dict[str, str] = {}
    if earlier is not None:
        held = pq.read_table(earlier / "passages.parquet")
        gone = dict(zip(held["passage_id"].to_pylist(), held["digest"].to_pylist(), strict=True))
    before, new = len(gone), set[str]()
    for batch in read_batches(passages, ["passage_id", "digest"]):
        for pid, digest in zip(batch["passage_id"], batch["digest"], strict=True):
            if gone.get(pid) == digest:
                del gone[pid]
            else:
                new.add(pid)
    return Change(earlier, before, set(gone), new)


def update_bm25(passages: Path, change: Change, index: Path, progress: Callable[[str], None]) -> dict[str, int]:
    """Lucene's index of the passages, from the earlier one where there is one: how many were added and removed.

    What it holds already, in the order of the passages, a killed run has added: it is the record of how far that came.
    """
    name, removed = index.name, 0
    if change.earlier is None or len(change.gone) > _ANEW * change.held:
        total, kept, batches = sum(len(b) for b in read_batches(passages, ["passage_id"])), 0, read_batches(passages, _COLUMNS)
    else:
        total, kept, removed = len(change.new), change.held - len(change.gone), len(change.gone)
        batches = _only(read_batches(passages, _COLUMNS), change.new)
        if not index.exists():
            unfinished = index.with_name(f"{name}.part")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(change.earlier / "bm25" / name, unfinished)
            if removed:
                remove_passages(unfinished, change.gone)
            unfinished.rename(index)
    there = any(index.glob("segments_*"))
    done = len(Bm25Index(index.parent, name)) - kept if there else 0
    rest = _after(batches, done)
    while done < total or not there:
        done += add_passages(index, _take(rest, COMMIT), append=there)
        there = True
        progress(f"{done} of {total} passages added to BM25, {removed} removed")
    return {"added": total, "removed": removed}


def _only(batches: Iterator[pd.DataFrame], ids: set[str]) -> Iterator[pd.DataFrame]:
    for batch in batches:
        chosen = batch[batch["passage_id"].isin(ids)]
        if len(chosen):
            yield chosen


def _after(batches: Iterator[pd.DataFrame], count: int) -> Iterator[pd.DataFrame]:
    """The rows that follow the first ``count``."""
    for batch in batches:
        rest = batch.iloc[count:]
        count = max(0, count - len(batch))
        if len(rest):
            yield rest


def _take(batches: Iterator[pd.DataFrame], count: int) -> Iterator[pd.DataFrame]:
    """As many batches of an iterator as it takes to ``count`` rows."""
    for batch in batches:
        yield batch
        count -= len(batch)
        if count <= 0:
            return
