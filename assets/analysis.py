"""Analysis: the language models side by side under lm-evaluation-harness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="analysis", kinds={"huggingface"}, settings=("harness", "adapter"), topics=("model_comparison",), pool="gpu")
def lm_eval_report(
    lab: Lab,
    mini_transformer: ModelArtifact,
    tokenized_corpus: DirectoryArtifact,
    promoted_adapter: ModelArtifact,
    domain_corpus: pd.DataFrame,
    pydocs_corpus: pd.DataFrame,
) -> StudyResult:
    """lm-evaluation-harness over local tasks: perplexity and multiple choice of the mini-Transformer, the base and the adapter."""
    from curriculum.evaluation.harness import evaluate_models

    adapter = lab.profile.adapter
    return evaluate_models(
        mini_transformer, tokenized_corpus, promoted_adapter, domain_corpus, pydocs_corpus, lab.settings, adapter,
        folder=lab.model(adapter.base), base=lab.identity(adapter.base, "base model"), device=lab.device,
        precision=lab.profile.compute.precision, seed=lab.seed, progress=lab.progress,
    )
