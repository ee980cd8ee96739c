"""Prompting: hand-written cases, and every prompt pattern over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import IndexArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="prompting", kinds={"yaml", "parquet"}, settings="prompting", topics=("hallucination_rate",))
def prompt_cases(lab: Lab) -> pd.DataFrame:
    """Hand-written cases: answerable, unanswerable, and with a false premise, each with what would be a hallucination."""
    from curriculum.prompting.cases import load_cases

    return load_cases(lab.dataset(lab.settings.source))


@lineage_asset(
    group="prompting", kinds={"huggingface"}, settings=("prompting", "generator", "retrieval"), pool="gpu",
    topics=("shots", "chain_of_thought", "react", "hallucination_rate"),
)  # fmt: skip
def prompt_study(lab: Lab, prompt_cases: pd.DataFrame, passages: pd.DataFrame, bm25_index: IndexArtifact) -> StudyResult:
    """Zero-shot, few-shot, chain of thought, ReAct with real tools, and grounded with abstention, over the same cases."""
    from curriculum.prompting.patterns import Kit
    from curriculum.prompting.study import prompt_study
    from curriculum.retrieval.bm25 import Bm25Index

    texts = dict(zip(passages["passage_id"], passages["text"], strict=True))
    index = Bm25Index(bm25_index.path, k1=lab.profile.retrieval.k1, b=lab.profile.retrieval.b)
    kit = Kit(
        lab.generator(), lambda queries, k: [[texts[pid] for pid, _ in hits] for hits in index.search(queries, k)], lab.settings, lab.seed
    )
    model = lab.profile.generator.model
    identities = [lab.identity(model, "model")] if lab.profile.generator.kind == "local" else []
    return prompt_study(prompt_cases, kit, identities=identities, progress=lab.progress)
