"""Evaluation of retrieval-augmented answers: groundedness, answer F1 and answer rate together, and where the losses are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from curriculum.errors import DataError
from curriculum.evaluation.statistics import bootstrap_mean, clopper_pearson
from curriculum.grounding.verifier import SupportVerifier
from curriculum.plots import draw
from curriculum.rag.faithfulness import context_precision_recall, faithfulness
from curriculum.rag.settings import RagSettings
from curriculum.reading.metrics import f1
from curriculum.reranking.reranker import passage_texts
from curriculum.results import Metric, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ANSWERABLE, UNANSWERABLE = ("answerable",), ("unanswerable", "false_premise")
_RATES = {"answer_rate", "unanswerable_answered_rate", "citation_rate", "gold_cited_rate"}
_LOWER_IS_BETTER = {"unanswerable_answered_rate"}


def report_rag(
    answers: pd.DataFrame, verifier: SupportVerifier, passages: pd.DataFrame, settings: RagSettings, *, seed: int = 0
) -> StudyResult:
    """Judge ``answers`` (the table of :func:`curriculum.rag.answering.answer_questions`).

    - ``groundedness``: ragas' faithfulness of each answer given to the passages it cites; ``groundedness__drafts`` the same of
      every draft to the passages shown, before anything was withheld;
    - ``answer_f1``: best F1 against the gold answers over answerable questions, an abstention counting 0;
    - ``answer_rate``: share of answerable questions answered; ``unanswerable_answered_rate``: share of unanswerable and
      false-premise questions answered all the same;
    - ``citation_rate``: share of answers with at least one citation among the passages shown; ``gold_cited_rate``: share of
      answers to answerable questions that cite a passage with the gold answer;
    - ``context_precision``, ``context_recall``: of the passages shown, by id, over questions that have gold passages.

    Raises:
        DataError: there are no answers, or they name passages that are not given.
    """
    if answers.empty:
        raise DataError("rag_answers is empty; there is nothing to report on")
    rows = judge(answers, verifier, passages[passages["collection"] == settings.collection])  # another may name its documents alike
    metrics = _metrics(rows, seed)
    return StudyResult(
        study="rag_report",
        metrics=metrics,
        settings=settings.model_dump(mode="json"),
        seeds=[seed],
        remarks=_remarks(metrics),
        per_example=rows.drop(columns=["question", "answer", "gold"]),
        tables={"by_kind": by_kind(rows), "answers": rows[["example_id", "kind", "question", "answer", "gold", "answer_f1", "support"]]},
        plots={"support": _plot(rows)},
    )


def judge(answers: pd.DataFrame, verifier: SupportVerifier, passages: pd.DataFrame) -> pd.DataFrame:
    """One row a question with its scores; NaN where a score does not apply (groundedness of an abstention ...)."""
    texts = passage_texts(passages)
    cited, shown = ([[str(p) for p in ids] for ids in answers[column]] for column in ("citations", "contexts"))
    unknown = sorted({p for ids in [*cited, *shown] for p in ids} - texts.keys())
    if unknown:
        raise DataError(f"rag_answers names passages that are not among the passages: {', '.join(unknown[:3])}; answer again")
    questions, given, drafts = (answers[column].astype(str).tolist() for column in ("question", "answer", "draft"))
    reference = reference_ids(answers, passages)
    precision, recall = context_precision_recall(shown, reference)
    answered = [bool(text) for text in given]
    rows = pd.DataFrame(
        {
            "example_id": answers["question_id"].astype(str),
            "kind": answers["kind"].astype(str),
            "question": questions,
            "answer": given,
            "gold": ["; ".join(gold) for gold in answers["gold"]],
            "answered": np.array(answered, dtype=float),
            "support": answers["support"].astype(float),
            "groundedness": faithfulness(questions, given, [[texts[p] for p in ids] for ids in cited], verifier),
            "groundedness__drafts": faithfulness(questions, drafts, [[texts[p] for p in ids] for ids in shown], verifier),
            "answer_f1": [f1(text, list(gold)) if len(gold) else 0.0 for text, gold in zip(given, answers["gold"], strict=True)],
            "draft_f1": [f1(text, list(gold)) if len(gold) else 0.0 for text, gold in zip(drafts, answers["gold"], strict=True)],
            "cited": [float(bool(set(c) & set(s))) if a else np.nan for a, c, s in zip(answered, cited, shown, strict=True)],
            "gold_cited": [
                float(bool(set(c) & set(r))) if a and r else np.nan for a, c, r in zip(answered, cited, reference, strict=True)
            ],
            "context_precision": precision,
            "context_recall": recall,
            "seconds": answers["seconds"].astype(float),
        }
    )
    return rows.reset_index(drop=True)


def reference_ids(answers: pd.DataFrame, passages: pd.DataFrame) -> list[list[str]]:
    """For each question the passages of its documents that hold a gold answer word for word; none for a question without an answer."""
    held = {document: list(zip(p["passage_id"], p["text"], strict=True)) for document, p in passages.groupby("doc_id")}
    return [
        [str(i) for document in row.documents for i, text in held.get(document, []) if any(str(gold) in str(text) for gold in row.gold)]
        for row in answers.itertuples()
    ]


def _metrics(rows: pd.DataFrame, seed: int) -> list[Metric]:
    answerable, unanswerable = rows[rows["kind"].isin(ANSWERABLE)], rows[rows["kind"].isin(UNANSWERABLE)]
    scores = {
        "groundedness": rows["groundedness"],
        "answer_f1": answerable["answer_f1"],
        "answer_rate": answerable["answered"],
        "unanswerable_answered_rate": unanswerable["answered"],
        "citation_rate": rows["cited"],
        "gold_cited_rate": answerable["gold_cited"],
        "context_precision": answerable["context_precision"],
        "context_recall": answerable["context_recall"],
        "groundedness__drafts": rows["groundedness__drafts"],
        "answer_f1__answered": answerable.loc[answerable["answered"] == 1, "answer_f1"],
        "answer_f1__drafts": answerable["draft_f1"],
    }
    metrics = [_metric(name, values.dropna().to_numpy(dtype=float), seed) for name, values in scores.items()]
    seconds = rows["seconds"].to_numpy()
    metrics.append(
        Metric(name="seconds_per_question", value=float(seconds.mean()), n=len(rows), unit="s", higher_is_better=False, deterministic=False)
    )
    return metrics


def _metric(name: str, values: np.ndarray, seed: int) -> Metric:
    if values.size == 0:  # nothing was measured: NaN, which every check reads as failed
        return Metric(name=name, value=float("nan"), n=0, higher_is_better=name not in _LOWER_IS_BETTER)
    if name in _RATES:
        low, high = clopper_pearson(int(values.sum()), values.size)
    else:
        low, high = bootstrap_mean(values, seed=seed)
    return Metric(
        name=name, value=float(values.mean()), n=int(values.size), low=low, high=high, higher_is_better=name not in _LOWER_IS_BETTER
    )


def by_kind(rows: pd.DataFrame) -> pd.DataFrame:
    """For each kind of question, and for all: number, groundedness, answer F1 and answer rate together, and the contexts."""
    names = ["groundedness", "answer_f1", "answered", "cited", "context_precision", "context_recall", "groundedness__drafts"]
    parts = [(str(kind), part) for kind, part in rows.groupby("kind", sort=True)] + [("all", rows)]
    table = pd.DataFrame([{"kind": kind, "n": len(part), **part[names].mean().to_dict()} for kind, part in parts])
    return table.rename(columns={"answered": "answer_rate", "cited": "citation_rate"})


def _remarks(metrics: Sequence[Metric]) -> list[str]:
    value = {m.name: m for m in metrics}
    shown = "; ".join(f"{name} {value[name].text()}" for name in ("groundedness", "answer_f1", "answer_rate", "unanswerable_answered_rate"))
    return [
        f"Read together: {shown}.",
        "Answers are withheld by the same verifier that judges groundedness, which flatters it; groundedness__drafts is what the "
        "answerer wrote before anything was withheld, and gold_cited_rate does not ask the verifier at all.",
    ]


def _plot(rows: pd.DataFrame) -> bytes:
    def paint(axes: Axes) -> None:
        for label, kinds in (("answerable", ANSWERABLE), ("unanswerable or false premise", UNANSWERABLE)):
            values = rows.loc[rows["kind"].isin(kinds), "support"]
            axes.hist(values, bins=np.linspace(0, 1, 11), alpha=0.6, label=label)

    return draw(paint, title="Support of the draft answers", x="support", y="questions")
