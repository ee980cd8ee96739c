"""Retrieve, rerank, answer, verify, cite: each question's answer with its sources, or an abstention."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from curriculum.cells import Cells
from curriculum.errors import DataError
from curriculum.grounding.claims import claims_of
from curriculum.grounding.verifier import SupportVerifier
from curriculum.rag.answerers import Answerer, Draft
from curriculum.rag.settings import RagSettings
from curriculum.reranking.mining import Retriever
from curriculum.reranking.reranker import Reranker, passage_texts
from curriculum.reranking.scoring import Ranking

TOGETHER = 25  # questions that are answered at once
COLUMNS = [
    "question_id", "note_id", "documents", "question", "kind", "answer", "draft", "citations", "contexts", "support", "abstained", "gold",
    "transcript", "seconds",
]  # fmt: skip


@dataclass(frozen=True)
class Pipeline:
    """The promoted parts that answer together."""

    retriever: Retriever
    reranker: Reranker
    verifier: SupportVerifier
    answerer: Answerer


def sample_questions(questions: pd.DataFrame, settings: RagSettings, seed: int = 0) -> pd.DataFrame:
    """At most ``settings.max_questions`` rows of ``settings.split``, each kind in proportion and at least once.

    Raises:
        DataError: the split has no questions.
    """
    rows = questions[questions["split"] == settings.split]
    if rows.empty:
        raise DataError(f"there are no questions of split '{settings.split}' on '{settings.collection}'; set rag.split to one that has some")
    share = min(1.0, settings.max_questions / len(rows))
    parts = [part.sample(max(1, int(len(part) * share)), random_state=seed) for _, part in rows.groupby("kind", sort=True)]
    return pd.concat(parts).sort_values("question_id").head(settings.max_questions).reset_index(drop=True)


def answer_questions(
    questions: pd.DataFrame, passages: pd.DataFrame, pipeline: Pipeline, settings: RagSettings, *,
    cells: Cells, progress: Callable[[str], None], seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """One row a sampled question of :func:`curriculum.rag.questions.asked_questions`, with the columns ``COLUMNS``.

    ``contexts`` are the ids of the passages shown, ``citations`` those of them that support the answer; ``draft`` is what the
    answerer wrote, ``answer`` what is given out: "" when it abstained or when the draft's support is below the threshold.
    ``support`` is that of the draft's weakest claim by its best passage, 0 without a draft. ``seconds`` is the time of a
    question, where steps are done for 25 questions at once its even share. These 25 are a cell: a killed run goes on with the next ones.

    Raises:
        DataError: no questions, or the index holds passages that are not given.
    """
    rows = sample_questions(questions, settings, seed)
    asked, texts = rows["question"].astype(str).tolist(), passage_texts(passages)
    decided: list[dict[str, Any]] = []
    for start in range(0, len(asked), TOGETHER):
        part = asked[start : start + TOGETHER]
        name = f"questions {start + 1} to {start + len(part)}"
        decided += cells.get(name, part, lambda part=part: {"rows": _answered(part, texts, pipeline, settings)})["rows"]
        progress(f"{name} of {len(asked)}: {sum(not row['abstained'] for row in decided)} answered so far")
    answered = pd.DataFrame(decided)
    answered[["question_id", "note_id"]], answered["documents"] = rows[["question_id", "note_id"]], [list(ids) for ids in rows["documents"]]
    answered["question"], answered["kind"] = asked, rows["kind"]
    answered["gold"] = [[str(a) for a in answers] for answers in rows["answers"]]
    return answered[COLUMNS]


def _answered(asked: list[str], texts: Mapping[str, str], pipeline: Pipeline, settings: RagSettings) -> list[dict[str, Any]]:
    start = time.perf_counter()
    found = pipeline.retriever.search(asked, settings.depth, settings.collection)
    ranked: list[Ranking] = [ranking[: settings.contexts] for ranking in pipeline.reranker.rerank(asked, found, texts)]
    contexts = [[passage for passage, _ in ranking] for ranking in ranked]
    drafts = pipeline.answerer.answer(asked, [[texts[p] for p in shown] for shown in contexts])
    supports = passage_support(asked, [d.text for d in drafts], contexts, texts, pipeline.verifier)
    spent = (time.perf_counter() - start - sum(d.seconds for d in drafts)) / len(asked)
    threshold = pipeline.verifier.threshold if settings.support_threshold is None else settings.support_threshold
    return [
        _decide(draft, shown, support, threshold, settings.withhold, spent)
        for draft, shown, support in zip(drafts, contexts, supports, strict=True)
    ]


def passage_support(
    questions: list[str], drafts: list[str], contexts: list[list[str]], texts: Mapping[str, str], verifier: SupportVerifier
) -> list[np.ndarray]:
    """Support of each claim of each draft by each of its passages: an array [claims, passages] a question."""
    claims = [claims_of(question, draft) if draft else [] for question, draft in zip(questions, drafts, strict=True)]
    pairs = [(texts[p], c) for made, shown in zip(claims, contexts, strict=True) for c in made for p in shown]
    flat, place, shaped = verifier.support(pairs), 0, []
    for made, shown in zip(claims, contexts, strict=True):
        size = len(made) * len(shown)
        shaped.append(flat[place : place + size].reshape(len(made), len(shown)))
        place += size
    return shaped


def _decide(draft: Draft, shown: list[str], support: np.ndarray, threshold: float, withhold: bool, spent: float) -> dict[str, Any]:
    weakest = float(support.max(axis=1).min()) if support.size else 0.0
    given = bool(draft.text) and (weakest >= threshold or not withhold)
    citations = [p for p, column in zip(shown, support.T, strict=True) if column.max() >= threshold] if support.size else []
    return {
        "answer": draft.text if given else "",
        "draft": draft.text,
        "citations": citations if given else [],
        "contexts": shown,
        "support": weakest,
        "abstained": not given,
        "transcript": draft.transcript,
        "seconds": draft.seconds + spent,
    }
