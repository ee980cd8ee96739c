"""What the study of learned sparse retrieval says: metrics with intervals over questions, tables and remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from curriculum.evaluation.metrics import low_metric, paired_metric
from curriculum.evaluation.statistics import bootstrap_mean
from curriculum.learned_sparse.settings import LearnedSparseSettings
from curriculum.results import Metric
from curriculum.retrieval.measure import Searched, per_query

MEASURES = ("ndcg_at_10", "recall_at_100")
POSTING = 8  # bytes: the number of the passage, int32, and the weight, float32
# what is compared: its name -> the system, the one it is held against, the measure
PAIRS: Mapping[str, tuple[str, str, str]] = {
    "sparse_over_bm25": ("sparse", "bm25", "ndcg_at_10"),
    "sparse_over_dense": ("sparse", "dense", "ndcg_at_10"),
    "recall_over_bm25": ("sparse", "bm25", "recall_at_100"),
    "fusion_gain": ("weighted_three", "weighted_two", "ndcg_at_10"),
    "rrf_gain": ("rrf_three", "rrf_two", "ndcg_at_10"),
    "expansion_gain": ("sparse", "own_terms", "ndcg_at_10"),
    "expansion_recall_gain": ("sparse", "own_terms", "recall_at_100"),
    "shuffled_loss": ("sparse", "shuffled", "ndcg_at_10"),
    "impact_change": ("impact", "sparse", "ndcg_at_10"),
}


def per_example(test: Sequence[Searched]) -> pd.DataFrame:
    """example_id, track, group, and nDCG@10 and recall@100 of each system as columns ``MEASURE__SYSTEM``."""
    parts = []
    for part in test:
        table = part.queries[["query_id", "track", "group"]].rename(columns={"query_id": "example_id"})
        for system, run in part.runs.items():
            found = per_query(run, part.queries)[["example_id", *MEASURES]].rename(columns={m: f"{m}__{system}" for m in MEASURES})
            table = table.merge(found, on="example_id", validate="one_to_one")
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _units(scores: pd.DataFrame, column: str) -> np.ndarray:
    """Score of each question [questions]: the mean of its phrasings, which are no independent observations."""
    return scores.groupby(["track", "group"], sort=True)[column].mean().to_numpy()


def system_table(scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """system, nDCG@10 with its interval over questions, recall@100, questions."""
    rows = []
    for system in [c.removeprefix("ndcg_at_10__") for c in scores if c.startswith("ndcg_at_10__")]:
        units = _units(scores, f"ndcg_at_10__{system}")
        low, high = bootstrap_mean(units, seed=seed)
        recall = float(_units(scores, f"recall_at_100__{system}").mean())
        line = {"system": system, "ndcg_at_10": float(units.mean()), "low": low, "high": high}
        rows.append({**line, "recall_at_100": recall, "questions": len(units)})
    return pd.DataFrame(rows)


def track_table(scores: pd.DataFrame) -> pd.DataFrame:
    """track, system, nDCG@10 and recall@100: means over queries."""
    means = scores.groupby("track", sort=True)[[c for c in scores if "__" in c]].mean()
    rows = []
    for track, line in means.iterrows():
        for system in [c.removeprefix("ndcg_at_10__") for c in means if c.startswith("ndcg_at_10__")]:
            rows.append({"track": track, "system": system, **{m: line[f"{m}__{system}"] for m in MEASURES}})
    return pd.DataFrame(rows)


def size_table(described: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """collection, system, bytes, bytes_per_passage: Lucene's and faiss's files as they lie there; postings of 8 bytes for the exact rows."""
    rows = []
    for collection, one in described.items():
        found = {name: one[f"{name}_bytes"] for name in ("bm25", "dense", "impact")}
        found |= {name: POSTING * kept for name, kept in one["kept"].items() if name not in {"shuffled"}}
        rows += [
            {"collection": collection, "system": name, "bytes": size, "bytes_per_passage": size / one["passages"]} for name, size in found.items()
        ]
    return pd.DataFrame(rows)


def sparse_metrics(
    scores: pd.DataFrame, systems: pd.DataFrame, sizes: pd.DataFrame, described: Mapping[str, dict[str, Any]],
    errors: Mapping[str, float], times: Mapping[str, Sequence[float]], seed: int,
) -> list[Metric]:  # fmt: skip
    """Errors against the definition, the library and Lucene; quality and paired differences; sparsity, bytes and milliseconds."""
    found = [
        Metric(name="pooling_error", value=errors["pooling"], higher_is_better=False),
        Metric(name="index_error", value=errors["index"], higher_is_better=False),
        Metric(name="lucene_error", value=errors["lucene"], higher_is_better=False),
        Metric(name="rounding_of_bound", value=errors["bound"], higher_is_better=False),
    ]
    for row in systems.itertuples():
        found.append(Metric(name=f"ndcg_at_10__{row.system}", value=row.ndcg_at_10, low=row.low, high=row.high, n=row.questions))
        found.append(Metric(name=f"recall_at_100__{row.system}", value=row.recall_at_100, n=row.questions))
    pruned = {f"ndcg_change__{s}": (s, "sparse", "ndcg_at_10") for s in systems["system"] if s.startswith("top_")}
    for name, (new, old, measure) in {**PAIRS, **pruned}.items():
        change = paired_metric(name, _units(scores, f"{measure}__{new}"), _units(scores, f"{measure}__{old}"), seed)
        found += [change, low_metric(f"{name}_low", change)]
    return [*found, *_sparsity(described), *_costs(sizes, described, times)]


def _sparsity(described: Mapping[str, dict[str, Any]]) -> list[Metric]:
    total = {key: sum(one[key] for one in described.values()) for key in next(iter(described.values())) if key not in {"kept"}}
    passages, queries, how = total["passages"], total["queries"], {"higher_is_better": False}
    weigh = [one["passages"] for one in described.values()]
    mean = {key: float(np.average([one[key] for one in described.values()], weights=weigh)) for key in ("flops", "flops_of_pieces")}
    return [
        Metric(name="terms_per_passage", value=total["postings"] / passages, n=passages, **how),
        Metric(name="density", value=total["postings"] / total["numbers"], n=passages, **how),
        Metric(name="pieces_per_passage", value=total["own_pieces"] / passages, n=passages, **how),
        Metric(name="terms_per_query", value=total["query_terms"] / queries, n=queries, **how),
        Metric(name="expansion_share", value=total["expansion"] / total["postings"], n=passages, **how),
        Metric(name="expansion_weight_share", value=1 - total["own_weight"] / total["weight"], n=passages, **how),
        Metric(name="own_pieces_kept", value=(total["postings"] - total["expansion"]) / total["own_pieces"], n=passages),
        Metric(name="flops", value=mean["flops"], n=queries, **how),
        Metric(name="flops_of_pieces", value=mean["flops_of_pieces"], n=queries, **how),
    ]


def _costs(sizes: pd.DataFrame, described: Mapping[str, dict[str, Any]], times: Mapping[str, Sequence[float]]) -> list[Metric]:
    passages = sum(one["passages"] for one in described.values())
    each = sizes.groupby("system", sort=False)["bytes"].sum() / passages
    spent = [
        Metric(name=f"ms_per_query__{leg}", value=float(np.median(own)), n=len(own), unit="ms", higher_is_better=False, deterministic=False)
        for leg, own in times.items()
    ]
    stored = [
        Metric(name=f"bytes_per_passage__{name}", value=float(size), n=passages, unit="B", higher_is_better=False) for name, size in each.items()
    ]
    return [*stored, Metric(name="size_of_dense__impact", value=float(each["impact"] / each["dense"]), higher_is_better=False), *spent]


def sparse_remarks(settings: LearnedSparseSettings, weights: Mapping[str, Sequence[float]]) -> list[str]:
    """How the numbers are to be read."""
    small = (
        f"The encoder starts from {settings.base} and was trained here for {settings.steps} steps of {settings.batch_size} queries: published SPLADE "
        "models see half a million queries and a cross-encoder's scores. A finished one is named by learned_sparse.base, with steps 0."
        if settings.steps
        else f"{settings.base} is taken as it was published, and nothing is trained here."
    )
    said = "; ".join(f"{name} legs {', '.join(f'{w:g}' for w in own)}" for name, own in weights.items())
    return [
        small,
        f"Fusion by relative scores; the weights of BM25, dense, sparse are chosen on dev queries that no training saw: {said}. rrf has none.",
        "own_terms is the ablation of expansion: of each vector only pieces that stand in the passage. shuffled gives each passage another one's "
        "vector: what is left is chance.",
        f"Lucene's impacts are weights times {settings.impact_scale}, rounded; rounding_of_bound is the greatest move of a score as a share of what "
        "rounding every weight the wrong way could do. Exact rows count 8 bytes a posting, BM25 and impacts the files of Lucene.",
        "flops is the mean number of products of one passage's score (Paria et al., 2020); flops_of_pieces the same if texts were just their pieces.",
        "Intervals resample questions; the phrasings of a question are one unit. Milliseconds hold the query's encoding.",
    ]
