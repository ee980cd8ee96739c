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
    tuning, training = split_dev(dev, settings, seed)
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
    reranker.weight = choose_weight(table)
    reranker.save(out)
    facts = {
        "training_groups": len(groups), "steps": settings.steps, "last_loss": float(np.mean(losses[-20:])),
        "weight": reranker.weight, "tuning_queries": len(tuning), "dev_ndcg_at_10_by_weight": {str(w): float(table[w].mean()) for w in table},
    }  # fmt: skip
    return ModelArtifact(out, facts)


def split_dev(dev: pd.DataFrame, settings: RerankerSettings, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Dev queries to choose the weight on, and dev queries to train on; all that is asked about one document stays together.

    A weight chosen on other phrasings of the training questions would trust the cross-encoder too far.
    """
    documents = dev["doc_ids"].map(lambda ids: str(ids[0]))
    names = documents.drop_duplicates().sort_values().sample(frac=1.0, random_state=seed)
    kept = documents.isin(names.head(max(1, round(len(names) * settings.tuning_share))))
    tuning = dev[kept]
    return tuning.sample(min(settings.tuning_queries, len(tuning)), random_state=seed), dev[~kept]


def choose_weight(table: Mapping[float, np.ndarray]) -> float:
    """The least weight whose dev nDCG@10 is within one standard error (paired, by query) of the best one's.

    The one-standard-error rule (Breiman et al., 1984): between weights that the dev queries cannot tell apart, the first stage,
    which has learnt nothing that could be wrong, keeps the larger say.
    """
    best = max(table, key=lambda weight: (table[weight].mean(), -weight))
    lost = {weight: table[best] - scores for weight, scores in table.items()}
    within = [w for w, loss in lost.items() if loss.mean() <= loss.std(ddof=1) / np.sqrt(len(loss))] if len(table[best]) > 1 else []
    return min([best, *within])


def weight_table(
    reranker: Reranker, queries: pd.DataFrame, texts: Mapping[str, str], retriever: Retriever, depth: int
) -> dict[float, np.ndarray]:
    """nDCG@10 [queries] for each weight of the cross-encoder from 0 to 1 (0: the first stage alone)."""
    judged, rankings, logits = {}, {}, {}
    for collection, rows in queries.groupby("collection", sort=True):
        asked = rows["query"].astype(str).tolist()
        candidates = retriever.search(asked, depth, str(collection))
        ids = rows["query_id"].astype(str).tolist()
        judged |= judgements(rows["relevant_ids"].tolist(), rows["grades"].tolist(), ids)
        rankings |= dict(zip(ids, candidates, strict=True))
        logits |= dict(zip(ids, reranker.score(asked, candidates, texts), strict=True))
    return {
        weight: np.array(list(ndcg_at_10({q: blend(rankings[q], logits[q], weight) for q in rankings}, judged).values()))
        for weight in WEIGHTS
    }
