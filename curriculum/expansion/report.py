"""The record of the query expansion study: its metrics, tables, plot, and what helped and what harmed in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from curriculum.evaluation.metrics import low_metric
from curriculum.expansion.settings import ExpansionSettings
from curriculum.expansion.systems import CONTROLS, MEASURES, PAIRS, SYSTEMS, gain_metric, mean_metric
from curriculum.plots import draw
from curriculum.results import Identity, Metric, StudyResult
from curriculum.retrieval.settings import RetrievalSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "rm3": "RM3 on BM25", "hyde": "HyDE on the dense leg", "hybrid_rm3": "RM3 in the hybrid", "hybrid_hyde": "HyDE in the hybrid",
    "hybrid_both": "Both in the hybrid", "hyde_alone": "HyDE without the query", "hyde_own": "HyDE over a stranger's",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What was measured: the sampled queries with the passages written for them, the scores of every system on them, milliseconds a
    query of the searches; and on all test queries of every track the scores of RM3 and the terms it added."""

    sample: pd.DataFrame
    written: pd.DataFrame
    scores: pd.DataFrame
    ms: dict[str, float]
    tracks: pd.DataFrame
    feedback: pd.DataFrame


def report(found: Found, settings: ExpansionSettings, retrieval: RetrievalSettings, *, seed: int, identities: list[Identity]) -> StudyResult:
    """Metrics of the sample, of every track under RM3, of the cost; and the expansions as tables to read."""
    gains = {(pair, measure): gain_metric(found.scores, measure, pair, seed) for pair in PAIRS for measure in MEASURES}
    costs, by_track = cost_table(found, gains), _by_track(found, seed)
    return StudyResult(
        study="query_expansion_study",
        metrics=[
            *_feedback_metrics(found.feedback),
            *(mean_metric(found.scores, measure, system, seed) for measure in MEASURES for system in (*SYSTEMS, *CONTROLS)),
            *gains.values(),
            *(low_metric(gain.name.replace("_gain__", "_gain_low__"), gain) for gain in gains.values()), *by_track, *_cost_metrics(costs, found),
        ],
        settings=settings.model_dump(mode="json") | {"track": retrieval.headline_track, "k1": retrieval.k1, "b": retrieval.b},
        identities=identities, seeds=[seed], remarks=_remarks(found, gains, costs, by_track, settings),
        per_example=found.scores,
        tables={
            "passages": _passages(found), "terms": found.feedback.assign(added=[", ".join(terms) for terms in found.feedback["added"]]),
            "costs": costs, "tracks": pd.DataFrame([m.model_dump(include={"name", "value", "low", "high", "n"}) for m in by_track]),
        },
        plots={"gains": _draw(gains, retrieval.headline_track)},
    )  # fmt: skip


def _feedback_metrics(feedback: pd.DataFrame) -> list[Metric]:
    """Whether RM3 is what it says: the same ranking as BM25 without feedback, and terms that are new with it."""
    answered = feedback[feedback["answered"]]
    return [
        Metric(name="rm3_parity", value=float(feedback["same"].mean()), n=len(feedback)),
        Metric(name="rm3_expanded", value=float((answered["added"].str.len() > 0).mean()), n=len(answered)),
    ]


def _by_track(found: Found, seed: int) -> list[Metric]:
    metrics = []
    for track, own in found.tracks.groupby("track"):
        for measure in MEASURES:
            metrics += [mean_metric(own, measure, system, seed, f"__{track}") for system in ("bm25", "bm25_rm3")]
            metrics.append(gain_metric(own, measure, "rm3", seed, f"__{track}"))
    return metrics


def cost_table(found: Found, gains: dict[tuple[str, str], Metric]) -> pd.DataFrame:
    """expansion, milliseconds of a query without it, tokens and milliseconds that it adds, and what it gains: a row for RM3 and one for HyDE."""
    ms, queries = found.ms, len(found.sample)
    writing = 1000 * found.written["seconds"].sum() / queries
    spent = {
        "rm3": {"plain_ms": ms["bm25"], "added_ms": ms["bm25_rm3"] - ms["bm25"], "tokens": 0.0, "prompt_tokens": 0.0},
        "hyde": {
            "plain_ms": ms["encode_query"] + ms["dense"], "added_ms": writing + ms["encode_passages"],
            **{column: found.written[column].sum() / queries for column in ("tokens", "prompt_tokens")},
        },
    }  # fmt: skip
    rows = []
    for name, own in spent.items():
        ends = {f"{m.split('_')[0]}_{end}": getattr(gains[name, m], end) for m in MEASURES for end in ("value", "low", "high")}
        rows.append({"expansion": name, **own, **ends})
    return pd.DataFrame(rows)


def _cost_metrics(costs: pd.DataFrame, found: Found) -> list[Metric]:
    own = costs.set_index("expansion")
    empty, less = float((found.written["passage"] == "").mean()), {"n": len(found.sample), "higher_is_better": False}
    return [
        *(Metric(name=f"added_ms__{name}", value=float(own.loc[name, "added_ms"]), unit="ms", deterministic=False, **less) for name in own.index),
        Metric(name="tokens_a_query", value=float(own.loc["hyde", "tokens"]), **less),
        Metric(name="empty_passages", value=empty, **less),
    ]


def _passages(found: Found) -> pd.DataFrame:
    """What was written for each query, beside what it did: query_id, sample, query, passage, tokens, seconds, and both scores."""
    scores = found.scores[["example_id", *(f"ndcg_at_10__{s}" for s in ("dense", "dense_hyde", "hyde_shuffled"))]]
    table = found.written.merge(found.sample[["query_id", "query"]], on="query_id", validate="many_to_one")
    table = table.merge(scores.rename(columns={"example_id": "query_id"}), on="query_id", validate="many_to_one")
    return table[["query_id", "sample", "query", "passage", "tokens", "seconds", *scores.columns[1:]]]


def verdict(gain: Metric) -> str:
    """What a paired interval says: ``helps``, ``harms``, or that it cannot be told."""
    return {1: "helps", -1: "harms", 0: "cannot be told from no change"}[gain.sign()]


def _remarks(
    found: Found, gains: dict[tuple[str, str], Metric], costs: pd.DataFrame, by_track: list[Metric], settings: ExpansionSettings
) -> list[str]:
    def said(pair: str) -> str:
        ndcg, recall = (gains[pair, measure] for measure in MEASURES)
        return f"{TITLES[pair]} {verdict(ndcg)} in nDCG@10: {ndcg.text()}; in recall@100 it {verdict(recall)}: {recall.text()}."

    rm3, hyde = (costs.set_index("expansion").loc[name] for name in ("rm3", "hyde"))
    tracks = [f"{m.name.rpartition('__')[2]} {m.text()} ({verdict(m)})" for m in by_track if m.name.startswith("ndcg_gain__")]
    return [
        *(said(pair) for pair in ("rm3", "hyde", "hybrid_rm3", "hybrid_hyde", "hybrid_both", "hyde_alone")),
        f"HyDE costs {hyde['tokens']:.0f} generated tokens and {hyde['added_ms'] / 1000:.2f} s a query; RM3 "
        f"{rm3['added_ms']:.1f} ms beside BM25's {rm3['plain_ms']:.1f}, of searches in a batch on one thread.",
        f"RM3 on all test queries of each track, nDCG@10: {'; '.join(tracks)}.",
        "hyde_own: the mean with the query's own passage against the mean with a passage of another question. Where own ones are no better, "
        "what a passage says does not matter, and a gain over the query alone would be chance.",
        "rm3_parity: the share of test queries whose ranking by RM3 without feedback, on an index with term vectors, is the ranking of the searched "
        "index; passages whose scores are equal as rounded may change places.",
        "rm3_expanded: the share of answered test queries to which feedback adds a term.",
        f"The {len(found.sample)} queries are test queries by hash, one phrasing of a question before a second one, of "
        f"{found.sample['group'].nunique()} questions, which intervals resample. Nothing is tuned.",
        f"HyDE has {settings.samples} passage(s) a query, of at most {settings.max_new_tokens} tokens at temperature {settings.temperature:g}, where "
        "its paper samples eight of a model a thousand times the size of the starter's. An empty passage is left out of the mean.",
    ]


def _draw(gains: dict[tuple[str, str], Metric], track: str) -> bytes:
    pairs = list(TITLES)[::-1]

    def paint(axes: Axes) -> None:
        for shift, measure, title in ((0.12, "ndcg_at_10", "nDCG@10"), (-0.12, "recall_at_100", "recall@100")):
            own = [gains[pair, measure] for pair in pairs]
            values, lows, highs = ([getattr(gain, end) for gain in own] for end in ("value", "low", "high"))
            ends = [[v - low for v, low in zip(values, lows, strict=True)], [high - v for v, high in zip(values, highs, strict=True)]]
            axes.errorbar(values, [place + shift for place in range(len(pairs))], xerr=ends, fmt="o", markersize=4, capsize=2, label=title)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(pairs)), [TITLES[pair] for pair in pairs], fontsize=8)

    return draw(paint, title=f"Change by expansion, track '{track}'", x="paired difference, 95% interval", size=(6.4, 3.4))
