"""Alignment: preference pairs of grounded and ungrounded answers, and the steps from imitation to preference optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import ModelArtifact
    from curriculum.results import StudyResult

TOPICS = ("instruct_tuning", "rlhf", "dpo")


@lineage_asset(group="finetuning", kinds={"parquet"}, settings="alignment", topics=TOPICS, deep=True)
def preference_pairs(lab: Lab, notes_corpus: pd.DataFrame, notes_questions: pd.DataFrame) -> pd.DataFrame:
    """Grounded answers to questions on the notes against ungrounded ones, split by note."""
    from curriculum.alignment.pairs import preference_pairs

    return preference_pairs(notes_corpus, notes_questions, passage_words=lab.settings.passage_words, seed=lab.seed)


@lineage_asset(group="finetuning", kinds={"torch", "huggingface"}, settings=("alignment", "corpora"), topics=TOPICS, pool="gpu", deep=True)
def alignment_study(lab: Lab, preference_pairs: pd.DataFrame, promoted_verifier: ModelArtifact) -> StudyResult:
    """SFT, a reward model, GRPO with and without a KL penalty, and DPO: win rate, KL, reward and preference accuracy on held-out notes."""
    from curriculum.alignment.study import alignment_study
    from curriculum.grounding.verifier import SupportVerifier

    verifier = SupportVerifier.load(promoted_verifier.path, lab.device)
    return alignment_study(
        preference_pairs, lab.model(lab.settings.base), verifier, lab.settings, seed=lab.seed, checkpoints=lab.checkpoints,
        progress=lab.progress, device=lab.device, precision=lab.profile.compute.precision,
        identities=[lab.identity(lab.settings.base, "base model"), lab.identity(lab.profile.corpora.notes, "notes")],
    )  # fmt: skip
