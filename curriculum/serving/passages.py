"""The passages of a served index, looked up one by one: half a million of them as Python objects would take gigabytes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from curriculum.reranking.reranker import passage_text

SHOWN = ("passage_id", "doc_id", "title", "section", "source", "text", "path", "place")  # the last two: of a user's own files


class Passages(Mapping[str, dict[str, str]]):
    """Rows {column of ``SHOWN``: text} by passage id, in a file of SQLite's own that goes with this object.

    ``batches`` are tables of passages; a column of ``SHOWN`` that one lacks is "". Any thread may read.
    """

    def __init__(self, batches: Iterable[pd.DataFrame]) -> None:
        self._lock = threading.Lock()
        self._rows = sqlite3.connect("", check_same_thread=False)  # "": on disk, private, and deleted when it is closed
        self._rows.execute(f"CREATE TABLE passages ({', '.join(SHOWN)})")
        marks = ", ".join("?" * len(SHOWN))
        for batch in batches:
            rows = batch.reindex(columns=SHOWN, fill_value="").astype(str).itertuples(index=False, name=None)
            self._rows.executemany(f"INSERT INTO passages VALUES ({marks})", rows)
        self._rows.execute("CREATE UNIQUE INDEX by_id ON passages (passage_id)")
        self._rows.commit()

    def __getitem__(self, passage_id: str) -> dict[str, str]:
        with self._lock:
            found = self._rows.execute(f"SELECT {', '.join(SHOWN)} FROM passages WHERE passage_id = ?", (passage_id,)).fetchone()
        if found is None:
            raise KeyError(passage_id)
        return dict(zip(SHOWN, found, strict=True))

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            ids = self._rows.execute("SELECT passage_id FROM passages ORDER BY rowid").fetchall()
        return (passage_id for (passage_id,) in ids)

    def __len__(self) -> int:
        with self._lock:
            return int(self._rows.execute("SELECT count(*) FROM passages").fetchone()[0])


class Texts(Mapping[str, str]):
    """What a model reads of each passage, by its id."""

    def __init__(self, passages: Passages) -> None:
        self._passages = passages

    def __getitem__(self, passage_id: str) -> str:
        row = self._passages[passage_id]
        return passage_text(row["title"], row["text"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._passages)

    def __len__(self) -> int:
        return len(self._passages)
