"""Small passages, and what a searched collection is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from curriculum.artifacts import DirectoryArtifact
from curriculum.retrieval.passages import COLUMNS
from curriculum.retrieval.settings import RetrievalSettings


def table(texts: dict[str, str], collection: str = "project", title: str = "") -> pd.DataFrame:
    """Passages of the given id -> text."""
    rows = [
        {c: "" for c in COLUMNS} | {"passage_id": pid, "collection": collection, "doc_id": pid, "title": title, "text": text, "position": 0}
        for pid, text in texts.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class Searchable:
    """The packaged notes, indexed: their passages, tracks and both indexes."""

    settings: RetrievalSettings
    passages: pd.DataFrame
    tracks: pd.DataFrame
    embeddings: DirectoryArtifact
    bm25: Path
    dense: Path
