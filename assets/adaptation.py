"""Adaptation: a QLoRA adapter on domain text, and what it changed and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset
from assets.memory import Item

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import ModelArtifact
    from curriculum.results import StudyResult


def _step_ledger(lab: Lab) -> list[Item]:
    """What a training step's memory goes to, by the ledger."""
    from transformers import AutoConfig

    from curriculum.adaptation.ledger import ModelShape, predict
    from curriculum.adaptation.training import uses_pages

    shape = ModelShape.of(AutoConfig.from_pretrained(lab.model(lab.settings.base)))
    size = 4 if lab.device == "cpu" or lab.profile.compute.precision == "float32" else 2
    return [(row.part, row.bytes) for row in predict(shape, lab.settings, value_bytes=size, paged=uses_pages(lab.settings, lab.device))]


@lineage_asset(
    group="finetuning", kinds={"torch", "huggingface"}, settings="adapter", topics=("lora", "qlora", "domain_adaptation"),
    pool="gpu", ledger=_step_ledger,
)  # fmt: skip
def qlora_adapter(lab: Lab, domain_corpus: pd.DataFrame) -> ModelArtifact:
    """LoRA adapters over an NF4 base, trained on the training split of the domain corpus."""
    from curriculum.adaptation.training import train_adapter

    return train_adapter(
        list(domain_corpus.loc[domain_corpus["split"] == "train", "text"]), lab.settings,
        folder=lab.model(lab.settings.base), base=lab.identity(lab.settings.base, "base model"), out=lab.out,
        checkpoints=lab.checkpoints, device=lab.device, precision=lab.profile.compute.precision, seed=lab.seed, progress=lab.progress,
    )


@lineage_asset(group="finetuning", kinds={"torch"}, settings="adapter", topics=("lora", "qlora"), pool="gpu", ledger=_step_ledger)
def adapter_report(lab: Lab, qlora_adapter: ModelArtifact, domain_corpus: pd.DataFrame) -> StudyResult:
    """Perplexity on held-out domain text and on other text, adapter off and on; the memory ledger against the measured peak."""
    from curriculum.adaptation.report import report_adapter
    from curriculum.adaptation.text import read_general
    from curriculum.corpora.sides import Sides

    texts = domain_corpus.groupby("split")["text"].apply(list)
    return report_adapter(
        qlora_adapter, Sides(texts["train"], texts["test"]),
        read_general(lab.settings.general_source, lab.dataset(lab.settings.general_source)), lab.settings,
        folder=lab.model(lab.settings.base), base=lab.identity(lab.settings.base, "base model"),
        general_identity=lab.identity(lab.settings.general_source, "dataset of general text"),
        device=lab.device, precision=lab.profile.compute.precision, seed=lab.seed, progress=lab.progress,
    )
