"""Rows of the search tables: a fusion, a retrieval track, an embedding model, a user's own corpus."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from curriculum.corpora.documents import text_digest
from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.results import Identity, Metric, StudyResult
from curriculum.retrieval.dense import DenseIndex, Encoder, build_dense, embed_passages
from curriculum.retrieval.hybrid import LEGS, HybridRetriever, fuse, leg_weights, ranked
from curriculum.retrieval.measure import FUSIONS, MEASURES, Searched, dense_weight, per_query, search_legs
from curriculum.retrieval.mteb_task import Run
from curriculum.retrieval.report import hybrid_report
from curriculum.retrieval.settings import RetrievalSettings
from curriculum.rows.settings import RowSettings


def leg_hits(retriever: HybridRetriever, tracks: pd.DataFrame, depth: int, progress: Callable[[str], None]) -> pd.DataFrame:
    """track, split, leg, query_id, passage_id, score: what BM25 and the encoder find, ``depth`` a query, searched once for every fusion."""
    rows = []
    for (track, split), group in tracks.groupby(["track", "split"]):
        found = search_legs(retriever, group, depth)
        rows += [
            (track, split, leg, query, passage, score)
            for leg in LEGS for query, hits in found.runs[leg].items() for passage, score in hits.items()
        ]  # fmt: skip
        progress(f"{track} {split}: {len(group)} queries")
    return pd.DataFrame(rows, columns=["track", "split", "leg", "query_id", "passage_id", "score"])


def _searched(hits: pd.DataFrame, tracks: pd.DataFrame) -> list[Searched]:
    found = []
    for (track, split), queries in tracks.groupby(["track", "split"]):
        own = hits[(hits["track"] == track) & (hits["split"] == split)]
        runs: dict[str, Run] = {leg: {} for leg in LEGS}
        for (leg, query), rows in own.groupby(["leg", "query_id"]):
            runs[leg][query] = dict(zip(rows["passage_id"], rows["score"], strict=True))
        found.append(Searched(track, split, queries, runs))
    return found


def fusion_row(
    system: str, hits: pd.DataFrame, tracks: pd.DataFrame, settings: RetrievalSettings, *, seed: int, identities: list[Identity]
) -> StudyResult:
    """One leg alone, or one fusion of both, on the test queries of every track; ``weighted`` takes its weight from the dev queries.

    Raises:
        DataError: the headline track has no test queries.
    """
    searched = _searched(hits, tracks)
    dev, tests = ([s for s in searched if s.split == side] for side in ("dev", "test"))
    weight = dense_weight(dev) if system in FUSIONS and FUSIONS[system][1] else None
    parts = []
    for one in tests:
        run = one.runs[system] if system in LEGS else _fused(one, system, settings.depth, weight)
        parts.append(per_query(run, one.queries).assign(track=one.track).merge(
            one.queries[["query_id", "group"]].rename(columns={"query_id": "example_id"}), on="example_id", validate="one_to_one"
        ))  # fmt: skip
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["track"])
    headline = scores[scores["track"] == settings.headline_track]
    if headline.empty:
        raise DataError(f"no test queries in the track '{settings.headline_track}'; correct the setting retrieval.headline_track")
    means = scores.groupby("track")["ndcg_at_10"].mean()
    return StudyResult(
        study=f"fusion_row/{system}",
        metrics=[
            *_measures(headline, seed),
            Metric(name="mean_ndcg_at_10", value=float(means.mean()), n=len(scores)),
            *(Metric(name=f"ndcg_at_10__{track}", value=float(mean), n=int((scores["track"] == track).sum())) for track, mean in means.items()),
        ],
        settings={"system": system, "headline_track": settings.headline_track, "depth": settings.depth, "dense_weight": weight},
        identities=identities, seeds=[seed], per_example=scores,
    )  # fmt: skip


def _fused(searched: Searched, system: str, depth: int, weight: float | None) -> Run:
    weights = None if weight is None else leg_weights(weight)
    legs = [searched.runs[leg] for leg in LEGS]
    return {q: dict(ranked(fuse([leg.get(q, {}) for leg in legs], FUSIONS[system][0], weights), depth)) for q in searched.queries["query_id"]}


def _measures(scores: pd.DataFrame, seed: int) -> list[Metric]:
    """Means over the queries; the intervals resample questions, whose phrasings are no independent observations."""
    metrics = []
    for name in MEASURES:
        low, high = bootstrap_mean(scores.groupby("group")[name].mean().to_numpy(), seed=seed)
        metrics.append(Metric(name=name, value=float(scores[name].mean()), low=low, high=high, n=len(scores)))
    return metrics


def track_row(
    track: str, retriever: HybridRetriever, passages: pd.DataFrame, tracks: pd.DataFrame, settings: RetrievalSettings,
    *, seed: int, identities: list[Identity], progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """Both legs and every fusion on one track, the fusion chosen on its own dev queries.

    Raises:
        DataError: the track has no test queries.
    """
    own = tracks[tracks["track"] == track]
    if own.empty:
        raise DataError(f"no queries in the track '{track}'; materialise retrieval_tracks again, or take the set out of the profile")
    only = settings.model_copy(update={"headline_track": track})
    result = hybrid_report(retriever, passages, own, only, seed=seed, identities=identities, progress=progress)
    extra = [m.model_copy(update={"name": f"{leg}_ndcg_at_10"}) for leg in LEGS if (m := result.metric(f"ndcg_at_10__{leg}__{track}"))]
    return result.model_copy(update={"study": f"retrieval_track_row/{track}", "metrics": [*result.metrics, *extra]})


def embedding_row(
    name: str, folder: Path, passages: pd.DataFrame, tracks: pd.DataFrame, settings: RetrievalSettings, rows: RowSettings,
    *, seed: int, device: str, identities: list[Identity], checkpoints: Path, progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """One embedding model alone, by exact search, on test queries of the headline track.

    It searches ``rows.embedding_passages`` passages, the relevant ones among them: the scores compare models, and lie above
    those over the whole collection.

    Raises:
        DataError: the headline track has no test queries.
    """
    model = rows.embedding_models[name]
    own = settings.model_copy(
        update={"encoder": model.source, "query_prompt": model.query_prompt, "passage_prompt": model.passage_prompt, "max_tokens": model.max_tokens}
    )
    queries = _sample(tracks[(tracks["track"] == settings.headline_track) & (tracks["split"] == "test")], rows.embedding_queries)
    if queries.empty:
        raise DataError(f"no test queries in the track '{settings.headline_track}'; correct the setting retrieval.headline_track")
    collection = queries.iloc[0]["collection"]
    pool = _pool(passages[passages["collection"] == collection], queries, rows.embedding_passages)
    encoder = Encoder(folder, own, device)
    with tempfile.TemporaryDirectory() as work:
        vectors, index = Path(work) / "vectors", Path(work) / "index"
        begun = time.perf_counter()
        made = embed_passages(pool, encoder, own, vectors, checkpoints, progress)
        seconds = time.perf_counter() - begun
        build_dense(made, index)
        found = DenseIndex(index, collection).search(encoder.queries(list(queries["query"])), settings.depth)
    run = {query: dict(hits) for query, hits in zip(queries["query_id"], found, strict=True)}
    groups = queries[["query_id", "group"]].rename(columns={"query_id": "example_id"})
    scores = per_query(run, queries).merge(groups, on="example_id", validate="one_to_one")
    return StudyResult(
        study=f"embedding_model_row/{name}",
        metrics=[
            *_measures(scores, seed),
            Metric(name="dimension", value=encoder.dimension, higher_is_better=False),
            Metric(name="passages_per_second", value=len(pool) / seconds, n=len(pool), deterministic=False),
        ],
        settings={"model": model.model_dump(mode="json"), "track": settings.headline_track, "passages": len(pool)},
        identities=identities, seeds=[seed], per_example=scores,
    )  # fmt: skip


def _sample(queries: pd.DataFrame, count: int) -> pd.DataFrame:
    order = queries["group"].map(text_digest)  # the phrasings of a question stay together
    return queries.assign(order=order).sort_values(["order", "query_id"]).head(count).drop(columns="order")


def _pool(passages: pd.DataFrame, queries: pd.DataFrame, count: int) -> pd.DataFrame:
    relevant = passages["passage_id"].isin(set(np.concatenate(queries["relevant_ids"].to_list())))
    order = passages["passage_id"].map(text_digest)
    return passages.assign(last=~relevant, order=order).sort_values(["last", "order"]).head(max(count, int(relevant.sum())))[passages.columns]
