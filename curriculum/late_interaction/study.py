"""Late interaction as a reranker of the hybrid's candidates, beside a cross-encoder, a single vector and none: quality, time and storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from curriculum.cells import Cells
from curriculum.corpora.documents import text_digest
from curriculum.errors import DataError
from curriculum.late_interaction.encoder import TokenEncoder
from curriculum.late_interaction.plots import draw_sizes, draw_times
from curriculum.late_interaction.report import late_metrics, late_remarks, per_example, size_table, system_table
from curriculum.late_interaction.settings import LateInteractionSettings
from curriculum.late_interaction.systems import Bench, SingleVectors, scored
from curriculum.reranking.mining import Retriever
from curriculum.reranking.reranker import Reranker, blend, passage_texts
from curriculum.reranking.scoring import Ranking, judgements, ndcg_at_10
from curriculum.reranking.settings import RerankerSettings
from curriculum.reranking.training import WEIGHTS, choose_weight, split_dev
from curriculum.results import StudyResult
from curriculum.storage import digest_of

TUNED = {"cross_encoder": "cross_encoder", "single": "single", "late": "fp32"}  # what is reported -> the system whose scores it takes


@dataclass(frozen=True)
class Searched:
    """Queries of one split (retrieval-track columns), their candidates, and what :func:`scored` gave of them."""

    rows: pd.DataFrame
    candidates: list[Ranking]
    found: dict[str, Any]

    def ndcg(self, system: str, weight: float) -> dict[str, float]:
        """nDCG@10 of each query when ``system`` counts ``weight`` and the first stage the rest; both scaled to [0, 1] within a query."""
        ids = self.rows["query_id"].astype(str).tolist()
        judged = judgements(self.rows["relevant_ids"].tolist(), self.rows["grades"].tolist(), ids)
        given = self.found["scores"][system]
        return ndcg_at_10({q: blend(r, np.array(s), weight) for q, r, s in zip(ids, self.candidates, given, strict=True)}, judged)


def late_interaction_study(
    reranker: Reranker,
    passages: pd.DataFrame,
    tracks: pd.DataFrame,
    settings: LateInteractionSettings,
    *,
    tuning: RerankerSettings,
    retriever: Retriever,
    tokens: TokenEncoder,
    single: Callable[[str], SingleVectors],
    seed: int,
    cells: Cells,
    progress: Callable[[str], None],
) -> StudyResult:
    """Every system over the same top ``settings.depth`` of each query; ``single`` gives the vectors of a collection.

    How much a system counts beside the first stage is chosen on dev queries that the cross-encoder was not trained on, by the same rule
    for each. A collection's token vectors are computed once and dropped after it; finished cells are kept.

    Raises:
        DataError: there are no test or no dev queries, or a passage of an index has no text.
    """
    asked = _asked(tracks, settings, tuning, seed)
    texts, searched, described = passage_texts(passages), list[Searched](), dict[str, dict[str, Any]]()
    for collection, rows in asked.groupby("collection", sort=True):
        parts = [part for _, part in rows.groupby(["split", "track"], sort=True)]
        found = [retriever.search(part["query"].astype(str).tolist(), settings.depth, str(collection)) for part in parts]
        ids = {pid for part in found for ranking in part for pid, _ in ranking}
        bench = Bench(sorted(ids), texts, reranker, tokens, single(str(collection)), settings, seed)
        known = [settings.model_dump(mode="json"), seed, str(collection), digest_of([bench.ids, [bench.texts[pid] for pid in bench.ids]])]
        searched += _searched(bench, parts, found, known, cells, progress)
        queries = rows["query"].astype(str).tolist()[: settings.parity_queries]
        described[str(collection)] = cells.get("described", [*known, queries], lambda b=bench, q=queries: b.described() | {"errors": b.parity(q)})
    return _result(searched, described, tokens, settings, seed)


def _asked(tracks: pd.DataFrame, settings: LateInteractionSettings, tuning: RerankerSettings, seed: int) -> pd.DataFrame:
    """Test queries by hash, at most ``queries`` a track, and the dev queries on which the reranker's own weight was chosen."""
    test, dev = (tracks[tracks["split"] == split] for split in ("test", "dev"))
    if test.empty or dev.empty:
        raise DataError("retrieval_tracks needs queries of the splits 'test' and 'dev': the one is reported on, the other chooses the weights")
    ordered = test.assign(order=[text_digest(str(q)) for q in test["query_id"]]).sort_values("order")
    chosen = ordered.groupby("track", sort=True).head(settings.queries).drop(columns="order")
    return pd.concat([chosen, split_dev(dev, tuning, seed)[0]], ignore_index=True)


def _searched(
    bench: Bench, parts: Sequence[pd.DataFrame], found: Sequence[list[Ranking]], known: list[Any], cells: Cells, progress: Callable[[str], None]
) -> list[Searched]:
    measured = []
    for part, candidates in zip(parts, found, strict=True):
        name = f"{part['track'].iloc[0]} {part['split'].iloc[0]}"
        queries = part["query"].astype(str).tolist()

        def compute(queries: list[str] = queries, candidates: list[Ranking] = candidates) -> dict[str, Any]:
            return scored(bench, queries, candidates, progress)

        measured.append(Searched(part.reset_index(drop=True), candidates, cells.get(name, [*known, queries, candidates], compute)))
        progress(f"{name}: {len(queries)} queries by {len(measured[-1].found['scores'])} systems")
    return measured


def _result(
    searched: Sequence[Searched], described: dict[str, dict[str, Any]], tokens: TokenEncoder, settings: LateInteractionSettings, seed: int
) -> StudyResult:
    dev, test = ([s for s in searched if (s.rows["split"] == split).all()] for split in ("dev", "test"))
    weights = {name: _weight(dev, system) for name, system in TUNED.items()}
    ranked = {"none": ("fp32", 0.0)} | {name: (system, weights[name]) for name, system in TUNED.items()}
    ranked |= {f"{name}_alone": (system, 1.0) for name, system in TUNED.items()}
    ranked |= {name: (name, 1.0) for name in test[0].found["scores"] if name not in TUNED.values()}
    scores = per_example(test, ranked)
    sizes = size_table(described)
    table = system_table(scores, ranked, seed)
    return StudyResult(
        study="late_interaction_study",
        metrics=late_metrics(scores, table, sizes, described, seed),
        settings={**settings.model_dump(mode="json"), "weights": weights},
        seeds=[seed],
        remarks=late_remarks(settings, weights, tokens.made_for_maxsim),
        per_example=scores,
        tables={"systems": table, "sizes": sizes, "by_track": _by_track(scores, ranked)},
        plots={"time": draw_times(table), "size": draw_sizes(table, sizes)},
    )


def _weight(dev: Sequence[Searched], system: str) -> float:
    found = {w: np.array([value for part in dev for value in part.ndcg(system, w).values()]) for w in WEIGHTS}
    return choose_weight(found)


def _by_track(scores: pd.DataFrame, ranked: dict[str, tuple[str, float]]) -> pd.DataFrame:
    means = scores.groupby("track", sort=True)[[f"ndcg_at_10__{name}" for name in ranked]].mean()
    return means.rename(columns=lambda name: name.removeprefix("ndcg_at_10__")).reset_index()
