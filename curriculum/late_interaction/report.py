"""What the study of late interaction says: metrics with intervals over questions, tables and remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.evaluation.statistics import PairedComparison, bootstrap_mean, paired_bootstrap
from curriculum.late_interaction.settings import LateInteractionSettings
from curriculum.results import Metric

if TYPE_CHECKING:
    from curriculum.late_interaction.study import Searched

Ranked = Mapping[str, tuple[str, float]]  # what is reported -> the system and how much it counts beside the first stage
CONTROLS = ("shuffled",)


def per_example(test: Sequence[Searched], ranked: Ranked) -> pd.DataFrame:
    """example_id, track, group, ``ndcg_at_10__NAME`` of every ranking and ``seconds__SYSTEM`` of every system."""
    parts = []
    for part in test:
        rows = part.rows[["query_id", "track", "group"]].rename(columns={"query_id": "example_id"})
        ndcg = {f"ndcg_at_10__{name}": list(part.ndcg(*how).values()) for name, how in ranked.items()}
        seconds = {f"seconds__{system}": spent for system, spent in part.found["seconds"].items()}
        parts.append(rows.assign(**ndcg, **seconds))
    return pd.concat(parts, ignore_index=True)


def _units(scores: pd.DataFrame, name: str) -> np.ndarray:
    """nDCG@10 of each question [questions]: the mean of its phrasings, which are no independent observations."""
    return scores.groupby("group", sort=True)[f"ndcg_at_10__{name}"].mean().to_numpy()


def _paired(scores: pd.DataFrame, new: str, old: str, seed: int) -> PairedComparison:
    return paired_bootstrap(_units(scores, new), _units(scores, old), seed=seed)


def _difference(name: str, found: PairedComparison) -> Metric:
    return Metric(name=name, value=found.difference, low=found.low, high=found.high, n=found.n)


def _low(name: str, found: PairedComparison) -> Metric:
    return Metric(name=name, value=found.low, n=found.n)


def late_metrics(
    scores: pd.DataFrame, table: pd.DataFrame, sizes: pd.DataFrame, described: Mapping[str, dict[str, Any]], seed: int
) -> list[Metric]:
    """Errors of the scoring, quality of each ranking (of :func:`system_table`), what compression loses, bytes and seconds."""
    errors = {name: max(one["errors"][name] for one in described.values()) for name in ("loop", "library", "padding")}
    return [
        Metric(name="maxsim_error__loop", value=errors["loop"], higher_is_better=False),
        Metric(name="maxsim_error__library", value=errors["library"], higher_is_better=False),
        Metric(name="padding_error", value=errors["padding"], higher_is_better=False),
        *_quality(scores, table, seed),
        *_storage(scores, sizes, seed),
        *_speed(scores, described),
    ]


def _quality(scores: pd.DataFrame, table: pd.DataFrame, seed: int) -> list[Metric]:
    found, gains = [], []
    for row in table.itertuples():
        bounds = {"low": row.low, "high": row.high, "n": row.questions}
        found.append(Metric(name=f"ndcg_at_10__{row.ranking}", value=row.ndcg_at_10, **bounds))
        if row.ranking.removesuffix("_alone") in {"cross_encoder", "single", "late"}:
            gains.append(Metric(name=f"ndcg_gain__{row.ranking}", value=row.gain, low=row.gain_low, high=row.gain_high, n=row.questions))
        if row.ranking == "late":
            gains.append(Metric(name="late_gain_low", value=row.gain_low, n=row.questions))
    over_single, shuffled = _paired(scores, "late_alone", "single_alone", seed), _paired(scores, "late_alone", "shuffled", seed)
    return [
        *found,
        *gains,
        _difference("late_over_cross_encoder", _paired(scores, "late", "cross_encoder", seed)),
        _difference("late_over_single", over_single),
        _low("late_over_single_low", over_single),
        _difference("shuffled_loss", shuffled),
        _low("shuffled_loss_low", shuffled),
    ]


def _storage(scores: pd.DataFrame, sizes: pd.DataFrame, seed: int) -> list[Metric]:
    found, mean = [], sizes.groupby("form", sort=False)[["bytes", "expected_bytes", "passages"]].sum()
    each = mean["bytes"] / mean["passages"]
    for form in each.index:
        found.append(Metric(name=f"bytes_per_passage__{form}", value=float(each[form]), unit="B", higher_is_better=False))
        if form not in {"single", "fp32"}:
            change = _paired(scores, form, "late_alone", seed)
            found += [_difference(f"ndcg_change__{form}", change), _low(f"ndcg_change_low__{form}", change)]
        if form not in {"single", "fp32", "fp16"}:
            found.append(Metric(name=f"size_of_fp16__{form}", value=float(each[form] / each["fp16"]), higher_is_better=False))
    wrong = float((mean["bytes"] / mean["expected_bytes"] - 1).abs().max())
    found.append(Metric(name="size_of_single__fp16", value=float(each["fp16"] / each["single"]), higher_is_better=False))
    return [*found, Metric(name="bytes_error", value=wrong, n=len(mean), higher_is_better=False)]


def _speed(scores: pd.DataFrame, described: Mapping[str, dict[str, Any]]) -> list[Metric]:
    spent = {column.removeprefix("seconds__"): scores[column].median() for column in scores if column.startswith("seconds__")}
    how: dict[str, Any] = {"higher_is_better": False, "deterministic": False}
    found = [
        Metric(name=f"seconds__{system}", value=float(middle), n=len(scores), unit="s", **how)
        for system, middle in spent.items() if system not in CONTROLS
    ]  # fmt: skip
    found.append(Metric(name="seconds_of_cross_encoder", value=float(spent["fp32"] / spent["cross_encoder"]), n=len(scores), **how))
    passages, seconds = (sum(one[key] for one in described.values()) for key in ("passages", "encode_seconds"))
    return [*found, Metric(name="encode_seconds_per_passage", value=seconds / passages, n=passages, unit="s", **how)]


def size_table(described: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """collection, form, passages, tokens, dimension, bytes as written and by arithmetic; ``single`` is one vector a passage in float32."""
    rows = []
    for collection, one in described.items():
        shared = {"collection": collection, **{key: one[key] for key in ("passages", "tokens", "dimension")}}
        whole = one["single_bytes"] * one["passages"]
        rows.append({**shared, "form": "single", "bytes": whole, "expected_bytes": float(whole)})
        rows += [{**shared, "form": form, "bytes": size, "expected_bytes": one["expected"][form]} for form, size in one["bytes"].items()]
    table = pd.DataFrame(rows)
    return table.assign(bytes_per_passage=table["bytes"] / table["passages"])


def system_table(scores: pd.DataFrame, ranked: Ranked, seed: int) -> pd.DataFrame:
    """ranking, system, weight, nDCG@10 with its interval, its paired difference from no reranking, median seconds a query."""
    rows = []
    for name, (system, weight) in ranked.items():
        units, gain = _units(scores, name), _paired(scores, name, "none", seed)
        low, high = bootstrap_mean(units, seed=seed)
        line = {"ranking": name, "system": system, "weight": weight, "ndcg_at_10": units.mean(), "low": low, "high": high, "questions": len(units)}
        seconds = 0.0 if name == "none" else scores[f"seconds__{system}"].median()
        rows.append({**line, "gain": gain.difference, "gain_low": gain.low, "gain_high": gain.high, "seconds": seconds})
    return pd.DataFrame(rows)


def late_remarks(settings: LateInteractionSettings, weights: Mapping[str, float], made_for_maxsim: bool) -> list[str]:
    """How the numbers are to be read."""
    trained = (
        f"{settings.encoder} was trained for MaxSim and brings its own projection, markers and lengths."
        if made_for_maxsim
        else f"{settings.encoder} was trained for one pooled vector: its last layer's tokens are compared as they are, without a projection."
    )
    chosen = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    return [
        trained + " A trained late-interaction model is named by the setting late_interaction.encoder.",
        f"All rerank the same top {settings.depth} of the hybrid search. A score is interpolated with the first stage's, each scaled to [0, 1] "
        f"within a query; the weight is chosen on dev queries by one rule for all: {chosen}. 'alone' is weight 1.",
        "Seconds are of reranking one query, its encoding included: the passages' vectors lie ready, where the cross-encoder reads every passage "
        "again. A compressed form is decompressed within them. What encoding costs before is encode_seconds_per_passage.",
        "padding_error is per token of the query, so in the unit of a cosine: the passage encoded and scored alone against the same in a batch "
        "with the longest one. shuffled scores each candidate by another passage's tokens: what is left is chance.",
        "Intervals resample questions; the phrasings of a question are one unit. bytes include where each passage begins and the codebook, which "
        "does not grow with the collection.",
    ]
