"""Training in parts: accumulation and checkpointing, and what several ranks of one machine make of the same step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    from curriculum.artifacts import DirectoryArtifact
    from curriculum.results import StudyResult

RANKED = ("data_parallel", "zero", "tensor_parallel", "pipeline_parallel")


@lineage_asset(group="finetuning", kinds={"torch"}, settings="parallel", topics=("gradient_accumulation",), deep=True)
def accumulation_study(lab: Lab, tokenized_corpus: DirectoryArtifact) -> StudyResult:
    """Accumulated gradients against the big batch's over unequal lengths; checkpointing's gradients, peak bytes and seconds."""
    from curriculum.parallel.accumulation_study import accumulation_study

    return accumulation_study(tokenized_corpus, lab.settings, seed=lab.seed, checkpoints=lab.checkpoints, progress=lab.progress)


@lineage_asset(group="finetuning", kinds={"torch"}, settings="parallel", topics=RANKED, deep=True)
def parallelism_study(lab: Lab, tokenized_corpus: DirectoryArtifact) -> StudyResult:
    """Two ranks against one on the same global batch: DDP, ZeRO 1 to 3, tensor and pipeline parallelism; bytes held and sent, the bubble."""
    from curriculum.parallel.parallelism_study import parallelism_study

    return parallelism_study(tokenized_corpus, lab.settings, seed=lab.seed, checkpoints=lab.checkpoints, progress=lab.progress)


@lineage_asset(group="finetuning", kinds={"torch"}, settings="parallel", topics=("training_instruments", "data_parallel"), deep=True)
def launcher_study(lab: Lab, tokenized_corpus: DirectoryArtifact) -> StudyResult:
    """One training entry point started plainly, by torchrun, accelerate and deepspeed; a killed rank, and runs that go on without it."""
    from curriculum.parallel.launcher_study import launcher_study

    return launcher_study(tokenized_corpus, lab.settings, seed=lab.seed, checkpoints=lab.checkpoints, progress=lab.progress)
