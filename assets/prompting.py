"""Prompting: hand-written cases, and every prompt pattern over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact
    from curriculum.prompting.patterns import Kit
    from curriculum.results import Identity, StudyResult


@lineage_asset(group="prompting", kinds={"yaml", "parquet"}, settings="prompting", topics=("hallucination_rate",))
def prompt_cases(lab: Lab) -> pd.DataFrame:
    """Hand-written cases: answerable, unanswerable, and with a false premise, each with what would be a hallucination."""
    from curriculum.corpora.schemas import conform
    from curriculum.prompting.cases import load_cases

    return conform(load_cases(lab.dataset(lab.settings.source)), "prompt_cases")


@lineage_asset(
    group="prompting", kinds={"huggingface"}, settings=("prompting", "generator", "retrieval"), pool="gpu",
    topics=("shots", "chain_of_thought", "react", "hallucination_rate"),
)  # fmt: skip
def prompt_study(lab: Lab, prompt_cases: pd.DataFrame, passages: pd.DataFrame, bm25_index: IndexArtifact) -> StudyResult:
    """Zero-shot, few-shot, chain of thought, ReAct with real tools, and grounded with abstention, over the same cases."""
    from curriculum.prompting.study import prompt_study

    return prompt_study(prompt_cases, kit_of(lab, passages, bm25_index), identities=generator_of(lab), progress=lab.progress)


@lineage_asset(
    group="prompting", kinds={"huggingface"}, settings=("prompting", "generator", "retrieval"), pool="gpu",
    topics=("hallucination_rate",), deep=True,
)  # fmt: skip
def hallucination_report(lab: Lab, prompt_cases: pd.DataFrame, passages: pd.DataFrame, bm25_index: IndexArtifact) -> StudyResult:
    """The gated prompt pattern over every hand-written case, by kind and by part. Too long for the lineage: a job of its own."""
    from curriculum.prompting.all_cases import study_all_cases

    kit = kit_of(lab, passages, bm25_index)
    return study_all_cases(prompt_cases, kit, identities=generator_of(lab), checkpoints=lab.checkpoints, progress=lab.progress)


def kit_of(lab: Lab, passages: pd.DataFrame, bm25_index: IndexArtifact) -> Kit:
    """What a prompt pattern works with: the generator, and a search of the passages."""
    from curriculum.prompting.patterns import Kit
    from curriculum.retrieval.bm25 import Bm25Index

    texts = dict(zip(passages["passage_id"], passages["text"], strict=True))
    index = Bm25Index(bm25_index.path, k1=lab.profile.retrieval.k1, b=lab.profile.retrieval.b)
    return Kit(
        lab.generator(), lambda queries, k: [[texts[pid] for pid, _ in hits] for hits in index.search(queries, k)], lab.settings, lab.seed
    )


def generator_of(lab: Lab) -> list[Identity]:
    """The identity of a local generator; an endpoint has none that can be pinned."""
    return [lab.identity(lab.profile.generator.model, "model")] if lab.profile.generator.kind == "local" else []
