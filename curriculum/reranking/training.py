"""Training of the reranker: mined groups, listwise loss, and a weight against the first stage chosen on dev queries."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from curriculum.artifacts import ModelArtifact
from curriculum.crossencoder.model import CrossEncoder
from curriculum.crossencoder.training import train
from curriculum.errors import DataError
from curriculum.reranking.mining import Retriever, inverse_cloze_queries, judged_queries, mine
from curriculum.reranking.reranker import Reranker, blend, passage_texts
from curriculum.reranking.scoring import judgements, ndcg_at_10
from curriculum.reranking.settings import RerankerSettings

WEIGHTS = tuple(round(0.1 * i, 1) for i in range(11))


def train_reranker(
    passages: pd.DataFrame,
    tracks: pd.DataFrame,
    settings: RerankerSettings,
    *,
    retriever: Retriever,
    model: Path,
    out: Path,
    checkpoints: Path,
    progress: Callable[[str], None],
    seed: int = 0,
    device: str = "cpu",
    precision: str = "float32",
) -> ModelArtifact:
    """Train on dev queries and on sentences of the passages, choose the weight on other dev queries, write to ``out``.

    Test queries are not read, and their relevant passages make no training query.

    Raises:
        DataError: there are no dev queries, or none has enough negatives.
    """
    rng = random.Random(seed)
    dev, test = tracks[tracks["split"] == "dev"], tracks[tracks["split"] == "test"]
    if dev.empty:
        raise DataError("retrieval_tracks has no queries of split 'dev'; the reranker is trained and its weight chosen on these")
    dev = dev.sample(frac=1.0, random_state=seed)
    kept = min(max(1, round(len(dev) * settings.tuning_share)), settings.tuning_queries)
    tuning, training = dev.iloc[:kept], dev.iloc[kept:]
    texts = passage_texts(passages)
    held_out = frozenset(str(p) for part in (test, tuning) for ids in part["relevant_ids"] for p in ids)
    queries = judged_queries(training, texts, rng)
    queries += inverse_cloze_queries(passages, held_out, settings.self_supervised_queries, rng)
    groups = mine(
        queries, retriever, texts,
        negatives=settings.negatives, depth=settings.mining_depth, near_duplicate=settings.near_duplicate, rng=rng,
    )  # fmt: skip
    progress(f"{len(groups)} training groups from {len(queries)} queries; {len(tuning)} dev queries choose the weight")
    encoder = CrossEncoder.start(model, max_length=settings.max_length, seed=seed, device=device)
    losses = train(
        encoder, groups, settings, loss="listwise", seed=seed, checkpoints=checkpoints, progress=progress, precision=precision
    )
    reranker = Reranker(encoder, batch_size=settings.score_batch_size)
    table = weight_table(reranker, tuning, texts, retriever, settings.depth)
    reranker.weight = max(table, key=lambda weight: (table[weight], -weight))
    reranker.save(out)
    facts = {
        "training_groups": len(groups), "steps": settings.steps, "last_loss": float(np.mean(losses[-20:])),
        "weight": reranker.weight, "tuning_queries": len(tuning), "dev_ndcg_at_10_by_weight": {str(w): table[w] for w in table},
    }  # fmt: skip
    return ModelArtifact(out, facts)


def weight_table(
    reranker: Reranker, queries: pd.DataFrame, texts: Mapping[str, str], retriever: Retriever, depth: int
) -> dict[float, float]:
    """Mean nDCG@10 over ``queries`` for each weight of the cross-encoder from 0 to 1 (0: the first stage alone)."""
    judged, rankings, logits = {}, {}, {}
    for collection, rows in queries.groupby("collection", sort=True):
        asked = rows["query"].astype(str).tolist()
        candidates = retriever.search(asked, depth, str(collection))
        ids = rows["query_id"].astype(str).tolist()
        judged |= judgements(rows["relevant_ids"].tolist(), rows["grades"].tolist(), ids)
        rankings |= dict(zip(ids, candidates, strict=True))
        logits |= dict(zip(ids, reranker.score(asked, candidates, texts), strict=True))
    return {
        weight: float(np.mean(list(ndcg_at_10({q: blend(rankings[q], logits[q], weight) for q in rankings}, judged).values())))
        for weight in WEIGHTS
    }
