"""Both indexes of a corpus, in the layout of ``search_index``. Lucene's is brought up to date; that of the vectors is built anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from shutil import copytree

import pandas as pd
import pyarrow.parquet as pq

from curriculum.artifacts import DirectoryArtifact, IndexArtifact
from curriculum.code_version import code_version
from curriculum.ingest.parts import read_batches
from curriculum.retrieval.bm25 import add_passages, remove_passages
from curriculum.retrieval.dense import build_dense
from curriculum.retrieval.passages import contents
from curriculum.storage import digest_of
from curriculum.vector_search.settings import VectorSearchSettings

_ANEW = 0.5  # where more than this share is to be removed, a new index is less work
_COLUMNS = ["passage_id", "title", "section", "text", "digest"]


def build_index(
    passages: DirectoryArtifact, vectors: DirectoryArtifact, search: VectorSearchSettings, out: Path,
    *, previous: Callable[[str], Path | None], progress: Callable[[str], None],
) -> IndexArtifact:  # fmt: skip
    """``out/bm25/COLLECTION`` and ``out/dense/COLLECTION``, and ``out/passages.parquet``: what the lexical one holds.

    ``search`` chooses the kind of the dense one by the number of vectors.
    ``previous`` finds an earlier index: its passages that changed or went are removed from a copy, and only new and changed ones added.
    """
    name = passages.facts["name"]
    dense = build_dense(vectors, out / "dense", search)
    progress(f"{name}: {vectors.facts['passages'][name]} vectors indexed ({dense.facts['kinds'][name]})")
    how = digest_of([[code_version(part) for part in (update_bm25, add_passages, contents)], version("pyserini"), name])[:20]
    earlier = previous(how)
    counts = update_bm25(passages.path, earlier, out, name)
    progress(f"{name}: {counts['added']} passages added to BM25, {counts['removed']} removed")
    table = pd.concat(read_batches(passages.path, ["passage_id", "digest"]), ignore_index=True)
    table.to_parquet(out / "passages.parquet", index=False)
    facts = {"name": name, "passage_words": passages.facts["words"], "dense": dense.facts, "bm25": {**counts, "passages": {name: len(table)}}}
    return IndexArtifact(out, {**facts, "how": how})


def update_bm25(passages: Path, earlier: Path | None, out: Path, name: str) -> dict[str, int]:
    """Lucene's index of the passages, from the one in ``earlier`` where there is one: how many were added and removed."""
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
    index, batches = out / "bm25" / name, read_batches(passages, _COLUMNS)
    if earlier is None or len(gone) > _ANEW * before:
        return {"added": add_passages(index, batches), "removed": 0}
    copytree(earlier / "bm25" / name, index)
    if gone:
        remove_passages(index, gone)
    if new:
        add_passages(index, _only(batches, new), append=True)
    return {"added": len(new), "removed": len(gone)}


def _only(batches: Iterator[pd.DataFrame], ids: set[str]) -> Iterator[pd.DataFrame]:
    for batch in batches:
        chosen = batch[batch["passage_id"].isin(ids)]
        if len(chosen):
            yield chosen
