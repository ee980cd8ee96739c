"""A track as an mteb retrieval task, and hits that are already known as an mteb search model: mteb does the scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from mteb import TaskMetadata, evaluate
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models import ModelMeta

from curriculum.retrieval.tracks import qrels

Run = dict[str, dict[str, float]]
_METADATA = {
    "description": "A retrieval track of this project.", "reference": None, "type": "Retrieval", "category": "t2t", "modalities": ["text"],
    "eval_splits": ["test"], "eval_langs": ["eng-Latn"], "main_score": "ndcg_at_10", "date": ("2024-01-01", "2024-12-31"),
    "domains": ["Written"], "task_subtypes": ["Question answering"], "license": "apache-2.0", "annotations_creators": "derived",
    "dialect": [], "sample_creation": "created", "bibtex_citation": "",
}


class KnownHits:
    """An mteb search model that answers from hits computed before: ``run`` maps query_id to {passage_id: score}."""

    def __init__(self, name: str, run: Run) -> None:
        self.run = run
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": f"curriculum/{name}"})

    def index(self, corpus: Any, **_: Any) -> None:
        """Nothing to do: the hits are known."""

    def search(self, queries: Any, *, top_k: int, **_: Any) -> Run:
        """The known hits of each query, best ``top_k``."""
        best = {q: sorted(self.run.get(q, {}).items(), key=lambda hit: (-hit[1], hit[0]))[:top_k] for q in queries["id"]}
        return {query: dict(hits) for query, hits in best.items()}


def task_of(track: str, passages: pd.DataFrame, queries: pd.DataFrame) -> AbsTaskRetrieval:
    """An mteb task over local tables: ``passages`` of one collection and the ``queries`` of one track and split."""

    class LocalRetrieval(AbsTaskRetrieval):
        metadata = TaskMetadata(name=f"Local-{track}", dataset={"path": "local", "revision": "local"}, **_METADATA)
        k_values = (1, 10, 100)

        def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
            corpus = {"id": passages["passage_id"], "title": passages["title"], "text": passages["text"]}
            asked = {"id": queries["query_id"], "text": queries["query"]}
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_dict({k: list(v) for k, v in corpus.items()}),
                        "queries": Dataset.from_dict({k: list(v) for k, v in asked.items()}),
                        "relevant_docs": qrels(queries),
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return LocalRetrieval()


def mteb_scores(model: Any, task: AbsTaskRetrieval, predictions: Path | None = None) -> dict[str, float]:
    """mteb's scores of a search model on a task: ``ndcg_at_10``, ``recall_at_100``, ``mrr_at_10`` and the others."""
    result = evaluate(
        model, task, cache=None, co2_tracker=False, show_progress_bar=False, overwrite_strategy="always", prediction_folder=predictions
    )
    return result.task_results[0].scores["test"][0]
