"""Training groups for the reranker: queries with a positive passage, and hard negatives mined from the first stage."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from curriculum.crossencoder.training import Group
from curriculum.errors import DataError
from curriculum.grounding.sentences import sentences
from curriculum.reranking.scoring import Ranking


class Retriever(Protocol):
    """First-stage search, as :class:`curriculum.retrieval.hybrid.HybridRetriever` does it."""

    def legs(self, queries: list[str], k: int, collection: str = "project") -> dict[str, list[Ranking]]:
        """The ``k`` best hits of each query by each leg (BM25, dense)."""

    def search(self, queries: list[str], k: int, collection: str = "project") -> list[Ranking]:
        """The ``k`` best hits of each query by the legs fused."""


@dataclass(frozen=True)
class TrainingQuery:
    """A query, the text of its positive passage, and the ids that are no negatives for it."""

    query: str
    collection: str
    positive: str
    relevant: frozenset[str]


def judged_queries(tracks: pd.DataFrame, texts: Mapping[str, str], rng: random.Random) -> list[TrainingQuery]:
    """One training query a row of ``tracks`` (retrieval-track columns) whose best-graded passage is among ``texts``."""
    found = []
    for row in tracks.itertuples():
        grades = dict(zip(row.relevant_ids, row.grades, strict=True))
        best = [p for p, grade in grades.items() if grade == max(grades.values()) and p in texts]
        if best:
            chosen = TrainingQuery(str(row.query), str(row.collection), texts[rng.choice(sorted(best))], frozenset(grades))
            found.append(chosen)
    return found


def inverse_cloze_queries(passages: pd.DataFrame, held_out: frozenset[str], n: int, rng: random.Random) -> list[TrainingQuery]:
    """Sentences as queries for the passages they were taken out of (Lee et al., 2019, https://arxiv.org/abs/1906.00300).

    ``held_out`` passages (those that answer test queries) are never used. One query a passage, at most ``n``.
    """
    found: list[TrainingQuery] = []
    for row in passages.sample(frac=1.0, random_state=rng.randrange(2**31)).itertuples():
        if len(found) == n:
            break
        parts = sentences(str(row.text))
        usable = [i for i, part in enumerate(parts) if 5 <= len(re.findall(r"[A-Za-z]{2,}", part)) <= 30]
        if str(row.passage_id) in held_out or len(parts) < 2 or not usable:
            continue
        taken = rng.choice(usable)
        rest = " ".join(part for i, part in enumerate(parts) if i != taken)
        positive = f"{row.title}. {rest}"
        found.append(TrainingQuery(parts[taken], str(row.collection), positive, frozenset({str(row.passage_id)})))
    return found


def mine(
    queries: Sequence[TrainingQuery],
    retriever: Retriever,
    texts: Mapping[str, str],
    *,
    negatives: int,
    depth: int,
    near_duplicate: float,
    rng: random.Random,
) -> list[Group]:
    """A group of 1 + ``negatives`` pairs a query: the positive, then passages that the first stage ranks high but are not relevant.

    They are drawn from the top ``depth`` of each leg. Relevant passages are left out, and those that share ``near_duplicate`` of
    their words with the positive: they answer the query too, only nobody has said so. A query for which too few remain is
    dropped.

    Raises:
        DataError: no query has enough negatives.
    """
    found: list[Group] = []
    for collection in sorted({q.collection for q in queries}):
        asked = [q for q in queries if q.collection == collection]
        results = retriever.legs([q.query for q in asked], depth, collection).values()
        for i, query in enumerate(asked):
            candidates = dict.fromkeys(p for ranking in results for p, _ in ranking[i])
            own = _words(query.positive)
            usable = [
                p for p in candidates
                if p in texts and p not in query.relevant and _jaccard(own, _words(texts[p])) < near_duplicate
            ]  # fmt: skip
            if len(usable) >= negatives:
                chosen = rng.sample(usable, negatives)
                pairs = ((query.query, query.positive), *((query.query, texts[p]) for p in chosen))
                found.append(Group(pairs, (1.0, *(0.0 for _ in chosen))))
    if not found:
        raise DataError("no training query has enough negatives; lower reranker.negatives or raise reranker.mining_depth")
    rng.shuffle(found)
    return found


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))
