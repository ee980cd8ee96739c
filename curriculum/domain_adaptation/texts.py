"""The three texts, each in two sides, and the labelled task; what would be measured and trained on at once is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from curriculum.adaptation.text import token_blocks
from curriculum.corpora.sides import Sides, overlap, refuse_repeats
from curriculum.domain_adaptation.settings import DomainAdaptationSettings
from curriculum.tuning.settings import TuningSettings
from curriculum.tuning.tasks import classification_task

DOMAIN, TASK, GENERAL = "domain", "task", "general"
TEXTS = (DOMAIN, TASK, GENERAL)


@dataclass(frozen=True)
class Material:
    """Blocks int64 [n, block + 1] of each text's sides, and the labelled texts of the task."""

    train: dict[str, torch.Tensor]
    test: dict[str, torch.Tensor]
    labelled: pd.DataFrame
    overlap: float


def notes_sides(notes: pd.DataFrame, questions: pd.DataFrame) -> Sides:
    """The notes on the side that their questions stand on, so that no test question is about a note that was read. Dev notes are left out."""
    side = dict(zip(questions["note_id"], questions["split"], strict=True))
    found = notes["doc_id"].map(side)
    return Sides(list(notes.loc[found == "train", "text"]), list(notes.loc[found == "test", "text"]))


def material(
    domain: Sides, labelled: pd.DataFrame, general: Sides, tokenizer: PreTrainedTokenizerBase, settings: DomainAdaptationSettings
) -> Material:
    """Everything that is read and measured, in blocks. TAPT reads every training text of the task, the classifier a sample of them.

    Raises:
        DataError: a text does not fill a block, the task has too few labels, or a measured text stands in one that is trained on.
    """
    s = settings
    task = Sides(*(list(labelled.loc[labelled["split"] == side, "text"]) for side in ("train", "test")))
    texts = {DOMAIN: domain, TASK: task, GENERAL: general}
    trained = [text for sides in texts.values() for text in sides.train]
    for sides in texts.values():
        refuse_repeats(trained, sides.test)
    limits = {DOMAIN: s.domain_steps * s.batch_size, TASK: s.task_steps * s.batch_size, GENERAL: s.domain_steps * s.batch_size}
    sample = TuningSettings(train_texts=s.train_texts, dev_texts=s.dev_texts, test_texts=s.test_texts)
    return Material(
        train={name: token_blocks(tokenizer, sides.train, s.block_size, limit=limits[name]) for name, sides in texts.items()},
        test={name: token_blocks(tokenizer, sides.test, s.block_size, limit=s.test_blocks) for name, sides in texts.items()},
        labelled=classification_task(labelled, sample),
        overlap=max(overlap(trained, sides.test) for sides in texts.values()),
    )
