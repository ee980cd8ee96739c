"""mteb both ways: its retrieval tasks as collections, and our tracks as its tasks, so that it does the scoring."""

from __future__ import annotations

from typing import Any

import pandas as pd
from datasets import Dataset
from mteb import TaskMetadata, evaluate, get_task
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models import ModelMeta

from curriculum.corpora.readers import Beir
from curriculum.errors import SourceError
from curriculum.retrieval.hybrid import ranked
from curriculum.retrieval.tracks import qrels

Run = dict[str, dict[str, float]]
_METADATA = {
    "description": "A retrieval track of this project.", "reference": None, "type": "Retrieval", "category": "t2t", "modalities": ["text"],
    "eval_splits": ["test"], "eval_langs": ["eng-Latn"], "main_score": "ndcg_at_10", "date": ("2024-01-01", "2024-12-31"),
    "domains": ["Written"], "task_subtypes": ["Question answering"], "license": "apache-2.0", "annotations_creators": "derived",
    "dialect": [], "sample_creation": "created", "bibtex_citation": "",
}  # fmt: skip


class KnownHits:
    """An mteb search model that answers from hits computed before: ``run`` maps query_id to {passage_id: score}."""

    def __init__(self, name: str, run: Run) -> None:
        self.run = run
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": f"curriculum/{name}"})

    def index(self, corpus: Any, **_: Any) -> None:
        """Nothing to do: the hits are known."""

    def search(self, queries: Any, *, top_k: int, **_: Any) -> Run:
        """The known hits of each query, best ``top_k``."""
        return {query: dict(ranked(self.run.get(query, {}), top_k)) for query in queries["id"]}


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


def mteb_scores(model: Any, task: AbsTaskRetrieval) -> dict[str, float]:
    """mteb's scores of a search model on a task: ``ndcg_at_10``, ``recall_at_100``, ``mrr_at_10`` and the others."""
    result = evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False, overwrite_strategy="always")
    return result.task_results[0].scores["test"][0]


def load_task(source: str) -> list[Beir]:
    """The data of the mteb retrieval task ``NAME`` or ``NAME@REVISION``, a set a language subset (downloads where not cached).

    Raises:
        SourceError: mteb has no such retrieval task, its data runs code from the hub, or it cannot be had.
    """
    name, _, revision = source.partition("@")
    try:
        task = get_task(name)
    except KeyError as error:
        raise SourceError(f"mteb has no task '{name}'; correct the setting retrieval.mteb_tasks") from error
    if not isinstance(task, AbsTaskRetrieval):
        raise SourceError(f"the mteb task '{name}' is no retrieval task; name one in the setting retrieval.mteb_tasks")
    if task.metadata.dataset.get("trust_remote_code"):
        raise SourceError(f"the data of the mteb task '{name}' runs code from the hub; choose another in retrieval.mteb_tasks")
    if revision:
        dataset = task.metadata.dataset | {"revision": revision}
        task.metadata = task.metadata.model_copy(update={"dataset": dataset})
    try:
        task.load_data()
    except OSError as error:  # no network, no such revision, offline mode
        raise SourceError(f"the data of the mteb task '{source}' cannot be had ({error}); change retrieval.mteb_tasks") from error
    return sets_of(task)


def sets_of(task: AbsTaskRetrieval) -> list[Beir]:
    """The loaded data of an mteb retrieval task, a set a language subset, named after the task."""
    found = []
    for subset, splits in task.dataset.items():
        name = task.metadata.name if subset == "default" else f"{task.metadata.name}-{subset}"
        corpora = [_documents(data["corpus"]) for data in splits.values()]
        asked = [pd.DataFrame({"query_id": list(data["queries"]["id"]), "text": list(data["queries"]["text"])}) for data in splits.values()]
        judged = [
            {"split": split, "query_id": str(query), "doc_id": str(doc), "grade": int(grade)}
            for split, data in splits.items() for query, docs in data["relevant_docs"].items() for doc, grade in docs.items()
        ]  # fmt: skip
        corpus = pd.concat(corpora).drop_duplicates("doc_id", ignore_index=True)
        queries = pd.concat(asked).drop_duplicates("query_id", ignore_index=True)
        found.append(Beir(name, corpus, queries, pd.DataFrame(judged)))
    return found


def _documents(corpus: Dataset) -> pd.DataFrame:
    titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
    table = pd.DataFrame({"doc_id": list(corpus["id"]), "title": list(titles), "text": list(corpus["text"])})
    return table.fillna({"title": ""})
