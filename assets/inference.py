"""Inference: one model in every number format, and texts longer than a model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="finetuning", kinds={"torch", "huggingface"}, settings="quantisation", topics=("quantization",), deep=True)
def quantisation_study(lab: Lab, domain_corpus: pd.DataFrame, qa_reader: ModelArtifact, qa_dataset: pd.DataFrame) -> StudyResult:
    """fp32, bf16, int8, NF4 and GGUF by llama.cpp: bytes, tokens a second, perplexity; integers beside the libraries'; the reader in int8."""
    from curriculum.cells import Cells
    from curriculum.quantisation.study import quantisation_study

    return quantisation_study(
        list(domain_corpus.loc[domain_corpus["split"] == "test", "text"]), qa_reader, qa_dataset, lab.settings,
        folder=lab.model(lab.settings.model), identities=[lab.identity(lab.settings.model, "model")], seed=lab.seed,
        cells=Cells(lab.checkpoints, lab.progress), progress=lab.progress,
    )  # fmt: skip


@lineage_asset(group="finetuning", kinds={"torch"}, settings="long_context", topics=("long_context",), deep=True)
def long_context_study(lab: Lab, tokenized_corpus: DirectoryArtifact) -> StudyResult:
    """Perplexity and a passkey past the training length: plain RoPE, position interpolation, NTK-aware, YaRN; what tiles save there."""
    from curriculum.cells import Cells
    from curriculum.long_context.study import long_context_study

    return long_context_study(tokenized_corpus, lab.settings, seed=lab.seed, cells=Cells(lab.checkpoints, lab.progress), progress=lab.progress)
