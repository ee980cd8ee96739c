"""The two tasks: blocks of a domain's text to be predicted, and short texts to be labelled. Nothing of a group lies on two sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from curriculum.adaptation.text import token_blocks
from curriculum.corpora.documents import split_of, text_digest
from curriculum.corpora.readers import read_text
from curriculum.errors import DataError
from curriculum.tuning.settings import TuningSettings

COLUMNS = ["example_id", "text", "label", "group", "split"]
_LABELS = ("label", "category", "intent")
_SIDES = ("train", "dev", "test")


@dataclass(frozen=True)
class Blocks:
    """int64 [n, block + 1] a side."""

    train: torch.Tensor
    dev: torch.Tensor
    test: torch.Tensor


def generation_task(domain: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, settings: TuningSettings) -> Blocks:
    """The domain corpus in blocks; a fifth of its training documents, by hash, are for the choice of the learning rate.

    Raises:
        DataError: a side does not fill one block.
    """
    training = domain[domain["split"] == "train"]
    side = training["doc_id"].map(lambda key: split_of(f"tuning {key}", {"train": 0.8, "dev": 0.2}))
    limits = {"train": settings.steps * settings.batch_size, "dev": settings.dev_blocks, "test": settings.test_blocks}
    texts = {"train": training.loc[side == "train", "text"], "dev": training.loc[side == "dev", "text"]}
    texts["test"] = domain.loc[domain["split"] == "test", "text"]
    return Blocks(**{name: token_blocks(tokenizer, texts[name], settings.block_size, limit=limits[name]) for name in _SIDES})


def question_parts(questions: pd.DataFrame, notes: pd.DataFrame) -> pd.DataFrame:
    """Which part of the syllabus a question is about: ``COLUMNS``, split by note. Phrasings are further training texts.

    Russian questions are left out: the packaged encoder reads English.
    """
    parts = dict(zip(notes["doc_id"], notes["module"], strict=True))
    rows = []
    for question in questions[questions["kind"] != "russian"].itertuples():
        texts = [question.question, *(question.phrasings if question.split == "train" else ())]
        for number, text in enumerate(texts):
            rows.append((f"{question.question_id}/{number}", text, parts[question.note_id], question.note_id, question.split))
    return pd.DataFrame(rows, columns=COLUMNS)


def read_labelled(folder: Path) -> pd.DataFrame:
    """A user's labelled texts (``COLUMNS``): ``train.csv`` and ``test.csv``, with the columns ``text`` and ``label`` (or ``category``).

    Or TREC's question classes: ``*.train.txt`` and ``*.test.txt`` with lines of ``LABEL:finer text``, of which the coarse label is taken.

    A tenth of the training texts, by hash, are for development. A text that stands in the test is taken out of the training.

    Raises:
        DataError: a file is missing, is of neither kind, or lacks a column or a label.
    """
    rows: list[tuple[str, str, str, str, str]] = []
    seen: set[str] = set()
    for side in ("test", "train"):
        for number, (text, label) in enumerate(_labelled_lines(folder, side), 1):
            key = " ".join(text.lower().split())
            if key in seen:
                continue
            seen.add(key)
            split = side if side == "test" else split_of(f"tuning {key}", {"train": 0.9, "dev": 0.1})
            rows.append((f"{side}-{number}", text, label, f"{side}-{number}", split))
    return pd.DataFrame(rows, columns=COLUMNS)


def _labelled_lines(folder: Path, side: str) -> Iterator[tuple[str, str]]:
    file, classes = folder / f"{side}.csv", sorted(folder.glob(f"*.{side}.txt"))
    return _trec_lines(classes[0]) if classes and not file.exists() else _csv_lines(file)


def _csv_lines(file: Path) -> Iterator[tuple[str, str]]:
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{file} cannot be read as CSV ({error}); tuning.classification needs a folder of train.csv and test.csv") from error
    label = next((name for name in _LABELS if name in table.columns), None)
    if "text" not in table.columns or label is None:
        raise DataError(f"{file} has the columns {', '.join(table.columns)}; it needs 'text' and one of {', '.join(_LABELS)}")
    return zip(table["text"], table[label], strict=True)


def _trec_lines(file: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(filter(None, read_text(file).split("\n")), 1):
        classes, _, text = line.partition(" ")
        label, colon, _ = classes.partition(":")
        if not (label and colon and text):
            raise DataError(f"{file}, line {number}: expected LABEL:finer and a text, got {line[:40]!r}")
        yield text, label


def classification_task(labelled: pd.DataFrame, settings: TuningSettings) -> pd.DataFrame:
    """A fixed sample of ``labelled`` by hash, of the labels that stand on every side.

    Raises:
        DataError: fewer than two labels do, or a group stands on two sides.
    """
    sides = labelled.groupby("label")["split"].agg(set)
    kept = labelled[labelled["label"].isin(sides.index[sides.map(lambda found: found >= set(_SIDES))])]
    if kept["label"].nunique() < 2:
        raise DataError("fewer than two labels have texts for training, development and test; give tuning.classification more")
    leaking = kept.groupby("group")["split"].nunique()
    if (leaking > 1).any():
        raise DataError(f"the group '{leaking.index[leaking > 1][0]}' stands on two sides of the split")
    limits = {"train": settings.train_texts, "dev": settings.dev_texts, "test": settings.test_texts}
    kept = kept.assign(order=kept["example_id"].map(text_digest)).sort_values("order")
    parts = [kept[kept["split"] == side].head(limits[side]) for side in _SIDES]
    return pd.concat(parts, ignore_index=True)[COLUMNS]
