"""Hard negatives from BM25 and from the current dense index, those too near the positive left out."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curriculum.errors import DataError
from curriculum.reranking.mining import Retriever, TrainingQuery


class TextEncoder(Protocol):
    """Texts as unit vectors, as :class:`curriculum.retrieval.dense.Encoder` makes them."""

    def queries(self, texts: list[str]) -> np.ndarray:
        """float32 [queries, dimension]."""

    def passages(self, texts: list[str]) -> np.ndarray:
        """float32 [passages, dimension]."""


@dataclass(frozen=True)
class Tuple:
    """A query, its positive passage, and its mined negatives. ``relevant``: ids that are no negatives in a batch either."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    relevant: frozenset[str]


@dataclass(frozen=True)
class Mined:
    """Training tuples, and what became of the candidates."""

    tuples: list[Tuple]
    candidates: int
    too_near: int


def mine_positive_aware(
    queries: Sequence[TrainingQuery],
    retriever: Retriever,
    encoder: TextEncoder,
    texts: Mapping[str, str],
    *,
    negatives: int,
    depth: int,
    positive_share: float,
    rng: random.Random,
) -> Mined:
    """``negatives`` passages a query from the top ``depth`` of each leg that are hard, but not so near that they may be answers.

    A candidate is dropped when its cosine with the query reaches ``positive_share`` of the positive's (TopK-PercPos of NV-Retriever,
    https://arxiv.org/abs/2407.15831). A query of which too few remain is left out.

    Raises:
        DataError: no query has enough negatives.
    """
    found, candidates, too_near = list[Tuple](), 0, 0
    for collection in sorted({q.collection for q in queries}):
        asked = [q for q in queries if q.collection == collection]
        legs = retriever.legs([q.query for q in asked], depth, collection).values()
        pools = [
            [p for p in dict.fromkeys(p for leg in legs for p, _ in leg[i]) if p in texts and p not in query.relevant]
            for i, query in enumerate(asked)
        ]
        vectors = _vectors(encoder, sorted({texts[p] for pool in pools for p in pool} | {q.positive for q in asked}))
        for query, vector, pool in zip(asked, encoder.queries([q.query for q in asked]), pools, strict=True):
            near = float(vector @ vectors[query.positive])
            limit = near - (1 - positive_share) * abs(near)  # a share of the magnitude: of a negative cosine the share would lie above it
            hard = [p for p in pool if float(vector @ vectors[texts[p]]) < limit]
            candidates, too_near = candidates + len(pool), too_near + len(pool) - len(hard)
            if len(hard) >= negatives:
                chosen = tuple(texts[p] for p in rng.sample(hard, negatives))
                found.append(Tuple(query.query, query.positive, chosen, query.relevant))
    if not found:
        raise DataError("no training query has enough negatives; lower embedder.negatives, or raise embedder.mining_depth or positive_share")
    rng.shuffle(found)
    return Mined(found, candidates, too_near)


def _vectors(encoder: TextEncoder, texts: list[str]) -> dict[str, np.ndarray]:
    return dict(zip(texts, encoder.passages(texts), strict=True))


def plan_batches(tuples: Sequence[Tuple], batch_size: int, steps: int, seed: int) -> list[list[int]]:
    """Indices of the tuples of each of ``steps`` batches, epoch after epoch in a shuffled order.

    Two queries that share a relevant passage never meet in a batch: each one's positive would be the other's negative.

    Raises:
        DataError: there are not enough unlike queries to fill two places of a batch.
    """
    rng = np.random.default_rng(seed)
    plan: list[list[int]] = []
    while len(plan) < steps:
        waiting, full = [int(i) for i in rng.permutation(len(tuples))], 0
        while waiting:
            batch, left, seen = list[int](), list[int](), set[str]()
            for index in waiting:
                free = len(batch) < batch_size and not seen & tuples[index].relevant
                (batch if free else left).append(index)
                seen |= tuples[index].relevant if free else set()
            waiting = left
            if len(batch) == batch_size or (not full and len(batch) > 1):
                plan.append(batch)
                full += 1
        if not full:
            raise DataError("all training queries share their relevant passages: there is nothing to tell apart")
    return plan[:steps]
