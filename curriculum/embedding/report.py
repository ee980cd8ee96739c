"""What the tuned encoder gains over the untuned one on test queries: alone, and fused with BM25."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean, paired_bootstrap
from curriculum.plots import draw
from curriculum.reranking.first_stage import first_stage
from curriculum.reranking.scoring import judgements, ndcg_at_10
from curriculum.results import Metric, StudyResult
from curriculum.retrieval.dense import Encoder, build_dense, embed_passages
from curriculum.retrieval.settings import RetrievalSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SYSTEMS = ("dense", "hybrid")


def embedder_report(
    passages: pd.DataFrame,
    tracks: pd.DataFrame,
    search: RetrievalSettings,
    *,
    bm25: Path,
    dense: Path,
    base: Path,
    tuned: Path,
    checkpoints: Path,
    progress: Callable[[str], None],
    seed: int = 0,
    device: str = "cpu",
) -> StudyResult:
    """nDCG@10 of the untuned encoder (whose index is ``dense``) and of the tuned one on the same test queries.

    ``ndcg_gain`` is the mean over test queries of the dense leg's difference, ``ndcg_gain_lower`` the lower end of its 95% paired
    bootstrap interval, in which a question's phrasings are one unit. ``ndcg_gain__hybrid``: the same after fusion with BM25 by RRF.

    Raises:
        DataError: there are no test queries.
    """
    test = tracks[tracks["split"] == "test"]
    if test.empty:
        raise DataError("retrieval_tracks has no queries of split 'test'; there is nothing to compare the encoders on")
    checkpoints.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        marked = search.model_copy(update={"encoder": f"tuned:{tuned}"})  # kept vectors are of an encoder: this one's are no other's
        vectors = embed_passages(passages, Encoder(tuned, search, device), marked, Path(folder) / "vectors", checkpoints, progress)
        build_dense(vectors, Path(folder) / "index")
        before = _scores(first_stage(bm25, dense, search, encoder=base, device=device), test)
        after = _scores(first_stage(bm25, Path(folder) / "index", search, encoder=tuned, device=device), test)
    per_query = before.merge(after, on=["example_id", "track", "group"], suffixes=("__untuned", ""), validate="one_to_one")
    metrics = _metrics(per_query, seed)
    return StudyResult(
        study="embedder_report",
        metrics=metrics,
        settings={"search": search.model_dump(mode="json")},
        seeds=[seed],
        remarks=[_remark(metrics)],
        per_example=per_query.drop(columns=["group"]),
        tables={"by_track": _by_track(per_query, seed)},
        plots={"gain": _plot(per_query)},
    )


def _scores(retriever: Any, test: pd.DataFrame) -> pd.DataFrame:
    """example_id, track, group, and nDCG@10 of the dense leg and of the fusion."""
    parts = []
    for (track, collection), rows in test.groupby(["track", "collection"], sort=True):
        ids, asked = rows["query_id"].astype(str).tolist(), rows["query"].astype(str).tolist()
        judged = judgements(rows["relevant_ids"].tolist(), rows["grades"].tolist(), ids)
        hits = {"dense": retriever.leg("dense", asked, 10, str(collection)), "hybrid": retriever.search(asked, 10, str(collection))}
        scored = {s: ndcg_at_10(dict(zip(ids, found, strict=True)), judged) for s, found in hits.items()}
        own = {f"ndcg_at_10__{s}": [scored[s][i] for i in ids] for s in SYSTEMS}
        parts.append(pd.DataFrame({"example_id": ids, "track": track, "group": rows["group"].astype(str).tolist(), **own}))
    return pd.concat(parts, ignore_index=True)


def _gain(rows: pd.DataFrame, system: str, seed: int) -> Any:
    """The paired gain, a question's phrasings averaged first: they are no independent queries."""
    column = f"ndcg_at_10__{system}"
    units = rows.groupby("group")[[column, f"{column}__untuned"]].mean()
    return paired_bootstrap(units[column].to_numpy(), units[f"{column}__untuned"].to_numpy(), seed=seed)


def _metrics(per_query: pd.DataFrame, seed: int) -> list[Metric]:
    gain, hybrid = _gain(per_query, "dense", seed), _gain(per_query, "hybrid", seed)
    found = [
        Metric(name="ndcg_gain", value=gain.difference, n=gain.n, low=gain.low, high=gain.high),
        Metric(name="ndcg_gain_lower", value=gain.low, n=gain.n),
        Metric(name="ndcg_gain__hybrid", value=hybrid.difference, n=hybrid.n, low=hybrid.low, high=hybrid.high),
    ]
    for column in [f"ndcg_at_10__{s}{end}" for s in SYSTEMS for end in ("", "__untuned")]:
        scores = per_query[column].to_numpy()
        low, high = bootstrap_mean(scores, seed=seed)
        found.append(Metric(name=column, value=float(scores.mean()), n=len(scores), low=low, high=high))
    return found


def _remark(metrics: list[Metric]) -> str:
    named = {m.name: m for m in metrics}
    gain, hybrid = named["ndcg_gain"], named["ndcg_gain__hybrid"]
    found = {1: "Tuning helps the dense leg", -1: "Tuning harms the dense leg", 0: "No gain is shown, the paired interval holds zero"}[gain.sign()]
    own = " Its domain is the passages it was tuned on, and no other." if gain.sign() > 0 else ""
    return f"{found}: nDCG@10 {gain.text()}; after fusion with BM25 {hybrid.text()}.{own}"


def _by_track(per_query: pd.DataFrame, seed: int) -> pd.DataFrame:
    table = []
    for track, rows in per_query.groupby("track", sort=True):
        for system in SYSTEMS:
            gain, column = _gain(rows, system, seed), f"ndcg_at_10__{system}"
            line = {"track": track, "system": system, "questions": gain.n, "untuned": rows[f"{column}__untuned"].mean(), "tuned": rows[column].mean()}
            table.append({**line, "gain": gain.difference, "low": gain.low, "high": gain.high})
    return pd.DataFrame(table)


def _plot(per_query: pd.DataFrame) -> bytes:
    means = per_query.groupby("track", sort=True)[["ndcg_at_10__dense__untuned", "ndcg_at_10__dense"]].mean()

    def paint(axes: Axes) -> None:
        places = np.arange(len(means))
        for shift, (column, label) in zip((-0.2, 0.2), zip(means.columns, ("untuned", "tuned"), strict=True), strict=True):
            axes.bar(places + shift, means[column], 0.4, label=label)
        axes.set_xticks(places, list(means.index))
        axes.set_ylim(0, 1)

    return draw(paint, title="The dense leg before and after tuning", y="nDCG@10")
