"""nDCG@10 by trec_eval, for lists of (passage id, score)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytrec_eval

Ranking = list[tuple[str, float]]


def ndcg_at_10(rankings: Mapping[str, Sequence[tuple[str, float]]], judged: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """nDCG@10 of each judged query, in the order of ``judged``; a query without a ranking scores 0.

    Rankings are taken in their given order: trec_eval would break equal scores by id, so ranks are handed to it as scores.
    """
    run = {
        query: {passage: float(len(ranking) - rank) for rank, (passage, _) in enumerate(ranking)}
        for query, ranking in rankings.items()
        if query in judged and ranking
    }
    qrels = {query: {passage: int(grade) for passage, grade in grades.items()} for query, grades in judged.items()}
    found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"}).evaluate(run)
    return {query: float(found[query]["ndcg_cut_10"]) if query in found else 0.0 for query in judged}


def judgements(
    relevant_ids: Sequence[Sequence[str]], grades: Sequence[Sequence[int]], query_ids: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Relevance by query: ``{query_id: {passage_id: grade}}``."""
    return {q: dict(zip(map(str, i), map(int, g), strict=True)) for q, i, g in zip(query_ids, relevant_ids, grades, strict=True)}


def scale(scores: Sequence[float]) -> np.ndarray:
    """Scores [n] mapped to [0, 1] by their minimum and maximum; all 0.5 where they are equal."""
    values = np.asarray(scores, dtype=float)
    spread = np.ptp(values) if values.size else 0.0
    return (values - values.min()) / spread if spread > 0 else np.full(values.shape, 0.5)
