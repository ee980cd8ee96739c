"""A learned sparse leg beside BM25 and dense search: alone, fused with both, without its expansion, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.learned_sparse.encoder import SparseTexts
from curriculum.learned_sparse.index import VECTORS
from curriculum.learned_sparse.plots import draw_sizes
from curriculum.learned_sparse.report import per_example, size_table, sparse_metrics, sparse_remarks, system_table, track_table
from curriculum.learned_sparse.settings import LearnedSparseSettings
from curriculum.learned_sparse.systems import Bench
from curriculum.reranking.settings import RerankerSettings
from curriculum.reranking.training import split_dev
from curriculum.results import StudyResult
from curriculum.retrieval.hybrid import HybridRetriever, fuse
from curriculum.retrieval.measure import Searched, ndcg, search_legs
from curriculum.retrieval.passages import contents
from curriculum.storage import digest_of, file_sha256

TWO, THREE = ("bm25", "dense"), ("bm25", "dense", "sparse")
Weights = tuple[float, ...]


def learned_sparse_study(
    passages: pd.DataFrame, tracks: pd.DataFrame, settings: LearnedSparseSettings, *,
    retriever: HybridRetriever, folders: Mapping[str, Path], encoder: SparseTexts, tuning: RerankerSettings,
    seed: int, cells: Cells, progress: Callable[[str], None],
) -> StudyResult:  # fmt: skip
    """Every system on every track. ``folders``: of the indexes ``sparse``, ``bm25`` and ``dense``.

    Weights of the fusions are chosen on the dev queries that the encoder was not trained on; test queries are read once.

    Raises:
        DataError: there are no test or no dev queries, or a passage of the index has no text.
    """
    test, dev = (tracks[tracks["split"] == split] for split in ("test", "dev"))
    if test.empty or dev.empty:
        raise DataError("retrieval_tracks needs queries of the splits 'test' and 'dev': the one is reported on, the other chooses the weights")
    asked = pd.concat([test, untrained_dev(dev, tuning, seed)], ignore_index=True)
    texts = dict(zip(passages["passage_id"].astype(str), contents(passages), strict=True))
    searched, described, parity = list[Searched](), dict[str, dict[str, Any]](), list[dict[str, float]]()
    times: dict[str, list[float]] = {}
    for collection, rows in asked.groupby("collection", sort=True):
        bench = Bench(folders["sparse"], str(collection), texts, encoder, settings, seed)
        known = [settings.model_dump(mode="json"), seed, file_sha256(bench.index.folder / VECTORS)]
        for (track, split), part in rows.groupby(["track", "split"], sort=True):
            searched.append(_search(bench, retriever, part.reset_index(drop=True), cells, known))
            progress(f"{track} {split}: {len(part)} queries by {len(searched[-1].runs)} systems")
        queries = rows.loc[rows["split"] == "test", "query"].astype(str).tolist()
        described[str(collection)] = bench.described(queries) | _sizes(folders, str(collection))
        parity.append(bench.parity(queries[: settings.parity_queries]))
        for system, spent in _timed(bench, retriever, str(collection), queries[: settings.timed_queries]).items():
            times.setdefault(system, []).extend(spent)
    weights = {name: chosen_weights([s for s in searched if s.split == "dev"], legs) for name, legs in (("two", TWO), ("three", THREE))}
    errors = {name: max(one[name] for one in parity) for name in parity[0]}
    return _result([s for s in searched if s.split == "test"], weights, described, errors, times, settings, seed)


def untrained_dev(dev: pd.DataFrame, tuning: RerankerSettings, seed: int) -> pd.DataFrame:
    """All dev queries about the documents that neither the reranker nor the sparse encoder is trained on."""
    return split_dev(dev, tuning.model_copy(update={"tuning_queries": len(dev)}), seed)[0]


def _search(bench: Bench, retriever: HybridRetriever, part: pd.DataFrame, cells: Cells, known: list[Any]) -> Searched:
    ids, queries = part["query_id"].tolist(), part["query"].astype(str).tolist()

    def compute() -> dict[str, Any]:
        runs = search_legs(retriever, part, retriever.depth).runs
        found = bench.search(queries, retriever.depth)
        return runs | {name: {qid: dict(hits) for qid, hits in zip(ids, own, strict=True)} for name, own in found.items()}

    first = part.iloc[0]
    runs = cells.get(f"{first['track']} {first['split']}", [*known, digest_of([ids, queries, bench.index.ids, bench.texts])], compute)
    return Searched(first["track"], first["split"], part, runs)


def fused(searched: Searched, legs: Sequence[str], fusion: Any, weights: Weights | None = None) -> dict[str, dict[str, float]]:
    """The run of ``legs`` fused by mteb's function, with equal weights where none are given."""
    runs = [searched.runs[leg] for leg in legs]
    return {q: fuse([run.get(q, {}) for run in runs], fusion, list(weights) if weights else None) for q in searched.queries["query_id"]}


def chosen_weights(dev: Sequence[Searched], legs: Sequence[str]) -> Weights:
    """Tenths for each of ``legs`` in relative score fusion, with the best mean dev nDCG@10 over the tracks.

    BM25 and dense search, the first two, always count; of equally good weights those that give the last leg least.
    """
    tenths = [w for w in np.ndindex(*([11] * len(legs))) if sum(w) == 10 and all(w[:2])]
    grid = [tuple(part / 10 for part in w) for w in sorted(tenths, key=lambda w: (w[-1], w))]

    def mean(weights: Weights) -> float:
        return float(np.mean([ndcg(fused(s, legs, "rsf", weights), s.queries) for s in dev]))

    return max(grid, key=mean)


def _sizes(folders: Mapping[str, Path], collection: str) -> dict[str, int]:
    return {f"{leg}_bytes": sum(f.stat().st_size for f in (folders[leg] / collection).rglob("*") if f.is_file()) for leg in TWO}


def _timed(bench: Bench, retriever: HybridRetriever, collection: str, queries: list[str]) -> dict[str, list[float]]:
    """Milliseconds of each query by each leg, its encoding included; the systems take turns, and the first round warms up."""
    ways: dict[str, Callable[[str], Any]] = {
        "bm25": lambda query: retriever.leg("bm25", [query], 10, collection),
        "dense": lambda query: retriever.leg("dense", [query], 10, collection),
        "sparse": lambda query: bench.index.search(bench.encoder.queries([query]), 10),
        "impact": lambda query: bench.impact.search(bench.encoder.queries([query]), 10),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for query in [queries[0], *queries]:
        for name, search in ways.items():
            begun = time.perf_counter()
            search(query)
            spent[name].append(1000 * (time.perf_counter() - begun))
    return {name: found[1:] for name, found in spent.items()}


def _result(
    test: Sequence[Searched], weights: dict[str, Weights], described: dict[str, dict[str, Any]], errors: dict[str, float],
    times: dict[str, list[float]], settings: LearnedSparseSettings, seed: int,
) -> StudyResult:  # fmt: skip
    for one in test:
        for name, legs in (("two", TWO), ("three", THREE)):
            one.runs[f"rrf_{name}"] = fused(one, legs, "rrf")
            one.runs[f"weighted_{name}"] = fused(one, legs, "rsf", weights[name])
    scores = per_example(test)
    systems, sizes = system_table(scores, seed), size_table(described)
    return StudyResult(
        study="learned_sparse_study",
        metrics=sparse_metrics(scores, systems, sizes, described, errors, times, seed),
        settings={**settings.model_dump(mode="json"), "weights": {name: list(own) for name, own in weights.items()}},
        seeds=[seed],
        remarks=sparse_remarks(settings, weights),
        per_example=scores,
        tables={"systems": systems, "sizes": sizes, "by_track": track_table(scores)},
        plots={"size": draw_sizes(systems, sizes)},
    )
