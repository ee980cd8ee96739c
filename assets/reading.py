"""Reading: questions with answer spans, the fine-tuned extractive reader, and its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="finetuning", kinds={"parquet"}, settings="reader", topics=("full_finetuning",))
def qa_dataset(lab: Lab, notes_corpus: pd.DataFrame, notes_questions: pd.DataFrame, pydocs_corpus: pd.DataFrame) -> pd.DataFrame:
    """Questions with exact answer spans, split by note, module or article."""
    from curriculum.reading.dataset import build_qa_dataset

    named = {"train": lab.settings.train_source, "test": lab.settings.test_source}
    sources = {side: lab.dataset(uri) for side, uri in named.items() if uri}
    return build_qa_dataset(notes_corpus, notes_questions, pydocs_corpus, lab.settings, seed=lab.seed, sources=sources)


@lineage_asset(group="finetuning", kinds={"torch", "huggingface", "optuna"}, settings="reader", topics=("full_finetuning",), pool="gpu")
def qa_reader(lab: Lab, qa_dataset: pd.DataFrame) -> ModelArtifact:
    """A BERT-family extractive reader: a hyper-parameter study on dev, then the best setting fine-tuned, stopped early by dev F1."""
    from curriculum.reading.training import train_reader

    return train_reader(
        qa_dataset, lab.settings, model=lab.model(lab.settings.model), out=lab.out, checkpoints=lab.checkpoints,
        progress=lab.progress, seed=lab.seed, device=lab.device,
    )  # fmt: skip


@lineage_asset(group="finetuning", kinds={"torch"}, settings="reader", topics=("full_finetuning",), pool="gpu")
def qa_report(lab: Lab, qa_reader: ModelArtifact, qa_dataset: pd.DataFrame) -> StudyResult:
    """The official SQuAD F1 and exact match on unseen articles, by type of question, with the study's table and the learning curve."""
    from curriculum.reading.report import qa_report

    identities = [lab.identity(lab.settings.model, "model")]
    return qa_report(qa_reader, qa_dataset, lab.settings, seed=lab.seed, identities=identities, device=lab.device)
