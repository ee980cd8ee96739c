"""A killed report goes on where it was: nothing that was finished is done again, and the numbers are those of a run that was not killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curriculum.errors import DataError
from curriculum.ingest import report
from curriculum.ingest.corpus import build_passages
from curriculum.ingest.index import build_index
from curriculum.ingest.report import Corpus, corpus_report
from curriculum.ingest.vectors import embed_corpus
from curriculum.results import StudyResult
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.vector_search.settings import VectorSearchSettings
from tests.ingest.files import birds
from tests.ingest.test_incremental import Letters, Shelf

SETTINGS = RetrievalSettings(max_queries=8, depth=8, max_tokens=64)


class Asked(Letters):
    """It remembers queries apart from passages."""

    def __init__(self) -> None:
        super().__init__()
        self.queries_asked: list[str] = []

    def passages(self, texts: list[str]) -> np.ndarray:
        counted = super().passages(texts)
        return counted / np.linalg.norm(counted, axis=1, keepdims=True)

    def queries(self, texts: list[str]) -> np.ndarray:
        self.queries_asked += texts
        before = len(self.asked)
        found = self.passages(texts)
        del self.asked[before:]
        return found


def test_a_killed_report_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(birds(tmp_path / "birds"), tmp_path / "work")
    documents = shelf.documents()
    passages = build_passages(documents, 60, tmp_path / "passages", **shelf._new("passages"))
    encoded = embed_corpus(passages, Asked(), SETTINGS, tmp_path / "vectors", identity="letters", **shelf._new("vectors"))
    index = build_index(passages, encoded, VectorSearchSettings(), tmp_path / "index", **shelf._new("index"))
    corpus, chosen, real = Corpus(shelf.folder, documents, passages, index), list[int](), report.choose_items
    monkeypatch.setattr(report, "choose_items", lambda batches, count: chosen.append(count) or real(batches, count))
    monkeypatch.setattr(report, "_TOGETHER", 2)

    def run(work: str, progress: Callable[[str], None]) -> tuple[StudyResult, Asked]:
        encoder: Any = Asked()
        (tmp_path / work).mkdir(exist_ok=True)
        return corpus_report(corpus, encoder, SETTINGS, tmp_path / work, seed=0, identities=[], progress=progress), encoder

    finished = list[str]()

    def killed(line: str) -> None:
        finished.append(line)
        if sum("queries searched" in each for each in finished) == 2:
            raise DataError("killed")

    with pytest.raises(DataError, match="killed"):  # after the dev queries, of which there are three
        run("killed", killed)
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed" / "taken out").rglob("*") if file.is_file()}
    assert chosen == [2 * SETTINGS.max_queries] and stamps

    said = list[str]()
    resumed, encoder = run("killed", said.append)
    assert len(chosen) == 1 and {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert sum(line.endswith("kept from before") for line in said) == 3  # the known items, and two pieces of the queries
    whole, from_nothing = run("whole", lambda line: None)
    assert len(chosen) == 2 and len(from_nothing.asked) - len(encoder.asked) == 8  # what is left of the passages was not encoded again
    assert len(from_nothing.queries_asked) - len(encoder.queries_asked) == 3
    for ours, theirs in zip(resumed.metrics, whole.metrics, strict=True):
        assert ours.name == theirs.name and (not ours.deterministic or ours == theirs)
    assert resumed.per_example.equals(whole.per_example)
