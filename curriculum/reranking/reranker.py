"""The reranker: a cross-encoder's scores over first-stage candidates, interpolated with the scores they came with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curriculum.crossencoder.model import CrossEncoder, Pair
from curriculum.errors import DataError
from curriculum.reranking.scoring import Ranking, scale

if TYPE_CHECKING:
    import pandas as pd

_FILE = "reranker.json"


class Reranker:
    """Orders candidates by ``weight * cross-encoder + (1 - weight) * first stage``, each scaled to [0, 1] within a query.

    A weight of 1 trusts the cross-encoder alone, 0 leaves the first stage as it is. It is chosen on dev queries.
    """

    def __init__(self, encoder: CrossEncoder, *, weight: float = 1.0, batch_size: int | None = None) -> None:
        self.encoder = encoder
        self.weight = weight
        self.batch_size = batch_size

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Reranker:
        """Read what :meth:`save` wrote. Raises SourceError where there is no reranker."""
        encoder = CrossEncoder.load(directory, device)
        described = json.loads((directory / _FILE).read_text(encoding="utf-8"))
        return cls(encoder, weight=described["weight"], batch_size=described["batch_size"])

    def save(self, directory: Path) -> None:
        """Write the model, the weight and the batch size into ``directory``."""
        self.encoder.save(directory)
        described = {"weight": self.weight, "batch_size": self.batch_size}
        (directory / _FILE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")

    def score(self, queries: Sequence[str], candidates: Sequence[Ranking], texts: Mapping[str, str]) -> list[np.ndarray]:
        """Cross-encoder logits of the candidates of each query, in their order.

        Raises:
            DataError: a candidate has no text (the index and the passages are of different versions).
        """
        try:
            pairs: list[Pair] = [(q, texts[p]) for q, ranking in zip(queries, candidates, strict=True) for p, _ in ranking]
        except KeyError as error:
            raise DataError(f"passage {error} is in the index but not among the passages: build the index from them again") from error
        flat = self.encoder.score(pairs, self.batch_size)
        return np.split(flat, np.cumsum([len(ranking) for ranking in candidates])[:-1]) if candidates else []

    def rerank(self, queries: Sequence[str], candidates: Sequence[Ranking], texts: Mapping[str, str]) -> list[Ranking]:
        """``candidates`` of each query in their new order, with their new scores in [0, 1]."""
        scores = self.score(queries, candidates, texts)
        return [blend(ranking, given, self.weight) for ranking, given in zip(candidates, scores, strict=True)]


def blend(ranking: Ranking, logits: np.ndarray, weight: float) -> Ranking:
    """``ranking`` reordered by the interpolated score; equal ones keep the order of the first stage."""
    mixed = weight * scale(logits) + (1 - weight) * scale([score for _, score in ranking])
    return [(ranking[i][0], float(mixed[i])) for i in np.argsort(-mixed, kind="stable")]


def passage_texts(passages: pd.DataFrame) -> dict[str, str]:
    """What the cross-encoder reads of each passage, by id: the title, then the text."""
    return {str(row.passage_id): passage_text(str(row.title), str(row.text)) for row in passages.itertuples()}


def passage_text(title: str, text: str) -> str:
    """What the cross-encoder reads of one passage."""
    return text if text.startswith(title) else f"{title}. {text}"
