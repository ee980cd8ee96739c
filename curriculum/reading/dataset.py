"""The QA examples: questions on the notes and on the Python documentation, or a user's SQuAD files; split by group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from curriculum.corpora.documents import split_of, text_digest
from curriculum.corpora.readers import read_squad
from curriculum.errors import DataError
from curriculum.reading.questions import ask
from curriculum.reading.settings import ReaderSettings
from curriculum.retrieval.passages import chunk

COLUMNS = ["example_id", "title", "context", "question", "answers", "answer_starts", "group", "split", "source"]
SHARES = {"train": 0.7, "dev": 0.1, "test": 0.2}
_CONTEXT = 440  # characters: about 120 tokens, so that most contexts are one window
_BODY = 330  # of them the docstring that holds the answer; the rest is its neighbour


def notes_examples(notes: pd.DataFrame, questions: pd.DataFrame) -> list[dict[str, Any]]:
    """The answerable English questions, each phrasing with the passage of the note that holds the answer."""
    texts = dict(zip(notes["doc_id"], notes["text"], strict=True))
    rows = []
    for question in questions[questions["kind"] == "answerable"].itertuples():
        passage = next((p for _, p in chunk(texts[question.note_id], 110) if question.answers[0] in p), None)
        if passage is None:
            continue  # the answer spans two passages
        answers = [a for a in question.answers if a in passage]
        for number, text in enumerate([question.question, *question.phrasings]):
            rows.append(
                {
                    "example_id": f"{question.question_id}/{number}", "title": question.note_id, "context": passage, "question": text,
                    "answers": answers, "answer_starts": [passage.index(a) for a in answers], "group": f"notes/{question.note_id}",
                    "split": question.split, "source": "notes",
                }
            )
    return rows


def documentation_examples(documents: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Rule-made questions on docstrings. A context holds a neighbour of the same module too, so the span has to be found."""
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(seed)
    own = documents[documents["kind"].isin(["function", "method", "class"])]
    for module, group in own.groupby("module"):
        members = list(group.itertuples())
        split = split_of(f"module {module}", SHARES)
        for index, member in enumerate(members):
            neighbour = members[index - 1] if len(members) > 1 else None
            for number, asked in enumerate(ask(member.qualified_name, member.text, member.summary)):
                made = _example(member, asked, neighbour, first=bool(rng.random() < 0.5))
                if made:
                    extra = {"example_id": f"{member.doc_id}/{number}", "group": f"module/{module}", "split": split}
                    rows.append({"title": member.qualified_name, "source": asked.kind} | made | extra)
    return rows


def _example(member: Any, asked: Any, neighbour: Any, *, first: bool) -> dict[str, Any] | None:
    """The context around one answer: the docstring, cut to fit, and the start of its neighbour before or after it."""
    answer = member.text[asked.start : asked.end].strip()
    begin = max(0, min(asked.start - 150, len(member.text) - _BODY)) if asked.end > _BODY else 0
    body = f"{member.qualified_name}: {member.text[begin : begin + _BODY]}"
    other = f"{neighbour.qualified_name}: {neighbour.text[: _CONTEXT - len(body)]}" if neighbour is not None else ""
    context = f"{other}\n\n{body}" if first and other else f"{body}\n\n{other}".strip()
    offset = (len(other) + 2 if first and other else 0) + len(member.qualified_name) + 2
    start = offset + asked.start - begin
    if not answer or context[start : start + len(answer)] != answer:
        return None
    return {"context": context, "question": asked.question, "answers": [answer], "answer_starts": [start]}


def hub_examples(folder: Path, split: str) -> pd.DataFrame:
    """QA examples from a local copy of a hub dataset in SQuAD's columns (id, title, context, question, answers)."""
    from datasets import load_dataset

    data = load_dataset(str(folder), split=split)
    rows = [
        {
            "example_id": r["id"], "title": r["title"], "context": r["context"], "question": r["question"], "answers": r["answers"]["text"],
            "answer_starts": r["answers"]["answer_start"], "group": f"squad/{r['title']}", "split": "", "source": "squad",
        }
        for r in data
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def sourced_examples(train: pd.DataFrame, test: pd.DataFrame | None, in_domain_share: float = 0.0) -> pd.DataFrame:
    """Split a user's examples by article: into train, dev and test, or with ``test`` given into train and dev.

    ``in_domain_share`` of the articles of ``test`` are trained on too, and not tested on.
    """
    shares = SHARES if test is None else {"train": 0.9, "dev": 0.1}
    split = [split_of(group, shares) for group in train["group"]]
    parts = [train.assign(split=split)]
    if test is not None:
        parts.append(test.assign(split=[split_of(group, {"train": in_domain_share, "test": 1 - in_domain_share}) for group in test["group"]]))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def sample(examples: pd.DataFrame, settings: ReaderSettings) -> pd.DataFrame:
    """At most the budgeted number of examples a split, chosen by hash; notes first in train, so that they are seen at all.

    Raises:
        DataError: a split is empty, or a group stands on two sides.
    """
    leaked = leaked_groups(examples)
    if leaked:
        raise DataError(f"{leaked} groups of questions stand on two splits; give every article one side")
    budgets = {"train": settings.train_examples, "dev": settings.dev_examples, "test": settings.test_examples}
    examples = examples[examples["answers"].map(len) > 0]
    order = [("0" if s == "notes" else "1") + text_digest(str(i)) for s, i in zip(examples["source"], examples["example_id"], strict=True)]
    examples = examples.assign(order=order).sort_values("order")
    parts = []
    for split, budget in budgets.items():
        side = examples[examples["split"] == split]
        if side.empty:
            raise DataError(f"no questions on the {split} side; the sources need more articles")
        notes = side[side["source"] == "notes"].head(budget // 2)
        parts.append(pd.concat([notes, side[side["source"] != "notes"].head(budget - len(notes))]))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def leaked_groups(examples: pd.DataFrame) -> int:
    """How many groups (articles, notes, modules) have questions on more than one split."""
    return int((examples.groupby("group")["split"].nunique() > 1).sum())


def build_qa_dataset(
    notes: pd.DataFrame, questions: pd.DataFrame, documents: pd.DataFrame, settings: ReaderSettings, *, seed: int, sources: dict[str, Path]
) -> pd.DataFrame:
    """The dataset the settings name. ``sources`` maps ``train`` and ``test`` to local files of the sources that are set."""
    if "train" not in sources:
        rows = [*notes_examples(notes, questions), *documentation_examples(documents, seed)]
        return sample(pd.DataFrame(rows, columns=COLUMNS), settings)
    if settings.train_source.startswith("hub:"):
        train, test = hub_examples(sources["train"], "train"), hub_examples(sources.get("test", sources["train"]), "validation")
        return sample(sourced_examples(train, test, settings.in_domain_share), settings)
    test = read_squad(sources["test"]) if "test" in sources else None
    return sample(sourced_examples(read_squad(sources["train"]), test, settings.in_domain_share), settings)
