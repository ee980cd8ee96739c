"""Context compression measured: what stays of the answer, and what a reader still finds, against the tokens that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from curriculum.cells import Cells
from curriculum.compression.pieces import plain
from curriculum.compression.report import WHOLE, report
from curriculum.compression.settings import CompressionSettings
from curriculum.compression.systems import Judges
from curriculum.corpora.documents import text_digest
from curriculum.errors import DataError
from curriculum.rag.answerers import Answerer
from curriculum.rag.report import ANSWERABLE
from curriculum.reading.metrics import f1, normalise
from curriculum.reranking.mining import Retriever
from curriculum.reranking.reranker import passage_texts
from curriculum.results import Identity, StudyResult


@dataclass(frozen=True)
class Context:
    """A question, its accepted answers, and the texts of the passages that are retrieved for it."""

    question_id: str
    question: str
    gold: tuple[str, ...]
    passages: tuple[str, ...]

    def holds(self, text: str) -> bool:
        """Whether an accepted answer stands in ``text`` word for word, without case, articles and punctuation."""
        said = f" {normalise(text)} "
        return any(f" {normalise(answer)} " in said for answer in self.gold if normalise(answer))


def context_compression_study(
    questions: pd.DataFrame,
    passages: pd.DataFrame,
    retriever: Retriever,
    judges: Judges,
    answerer: Answerer,
    settings: CompressionSettings,
    *,
    collection: str,
    seed: int,
    identities: list[Identity],
    cells: Cells,
) -> StudyResult:
    """Compress the retrieved contexts of test questions by every system to every share of their tokens, and read them.

    Only contexts that hold the answer are compressed: there is nothing to lose in the others. Nothing is tuned, so that the dev
    questions are not read. A killed study goes on with the next question.

    Raises:
        DataError: fewer than two contexts hold their question's answer.
    """
    asked, tried = contexts(questions, passages, retriever, settings, collection)
    known = [settings.model_dump(mode="json"), seed, [i.model_dump() for i in identities]]
    rows: list[dict[str, Any]] = []
    for place, one in enumerate(asked):
        stranger = asked[(place + 1) % len(asked)].question
        what = [*known, one.question, stranger, list(one.gold), list(one.passages)]
        rows += cells.get(one.question_id, what, partial(_compressed, one, stranger, judges, answerer, settings, seed + place))["rows"]
        if (place + 1) % 10 == 0 or place + 1 == len(asked):
            cells.progress(f"{place + 1} of {len(asked)} contexts compressed and read")
    return report(pd.DataFrame(rows), settings, tried=tried, seed=seed, identities=identities)


def contexts(
    questions: pd.DataFrame, passages: pd.DataFrame, retriever: Retriever, settings: CompressionSettings, collection: str
) -> tuple[list[Context], int]:
    """Answerable test questions with what is retrieved for them, where that holds the answer, and how many were tried.

    At most ``settings.questions``, by hash.
    """
    test = questions[(questions["split"] == "test") & questions["kind"].isin(ANSWERABLE)]
    rows = test.assign(order=test["question_id"].map(text_digest)).sort_values("order")
    texts, found = passage_texts(passages), list[Context]()
    hits = retriever.search(rows["question"].astype(str).tolist(), settings.contexts, collection)
    for tried, (row, ranking) in enumerate(zip(rows.itertuples(), hits, strict=True), 1):
        shown = tuple(plain(texts[passage]) for passage, _ in ranking)
        one = Context(str(row.question_id), str(row.question), tuple(map(str, row.answers)), shown)
        if one.holds("\n".join(shown)):
            found.append(one)
        if len(found) == settings.questions:
            return found, tried
    if len(found) < 2:
        raise DataError(
            f"{len(found)} of {len(rows)} test questions on '{collection}' find their answer in {settings.contexts} passages, and two are needed: "
            "raise compression.contexts"
        )
    return found, len(rows)


def _compressed(one: Context, stranger: str, judges: Judges, answerer: Answerer, settings: CompressionSettings, seed: int) -> dict[str, Any]:
    """``rows``: one a system and share, and one of the whole context."""
    scored = judges.score(one.question, stranger, one.passages, seed)
    rows: list[dict[str, Any]] = [{"system": WHOLE, "share": 1.0, "text": "\n".join(one.passages), "kept": 1.0, "over": 0.0, "seconds": 0.0}]
    for system, (pieces, scores, seconds) in scored.items():
        total = int(pieces.tokens.sum())
        for share in settings.shares:
            chosen = pieces.kept(scores, share * total)
            tokens = int(pieces.tokens[chosen].sum())
            rows.append({
                "system": system, "share": share, "text": pieces.joined(chosen), "kept": tokens / total, "over": max(0.0, tokens - share * total),
                "seconds": seconds,
            })  # fmt: skip
    read = _read(one, [str(row["text"]) for row in rows], answerer)
    for row, said in zip(rows, read, strict=True):
        row |= {
            "question_id": one.question_id, "evidence": float(one.holds(str(row["text"]))), "prediction": said, "f1": f1(said, list(one.gold)),
        }  # fmt: skip
    return {"rows": rows}


def _read(one: Context, texts: Sequence[str], answerer: Answerer) -> list[str]:
    """The answer read in each of ``texts``; "" in one that is empty."""
    full = [text for text in texts if text]
    drafts = iter(answerer.answer([one.question] * len(full), [[text] for text in full]))
    return [next(drafts).text if text else "" for text in texts]
