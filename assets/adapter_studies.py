"""Deep studies of adaptation: an adapter's rank and place, its export, and reading on before the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(
    group="finetuning", kinds={"torch", "huggingface"}, settings=("adapter_sweep", "corpora"), topics=("lora", "qlora", "domain_adaptation"),
    pool="gpu", deep=True,
)  # fmt: skip
def adapter_sweep(lab: Lab, domain_corpus: pd.DataFrame, notes_corpus: pd.DataFrame) -> StudyResult:
    """QLoRA over ranks and target modules at one small budget, on two domains and a user's own: perplexity there, forgetting elsewhere."""
    from curriculum.adaptation.sweep import adapter_sweep
    from curriculum.corpora.readers import read_documents
    from curriculum.corpora.sides import sides_of

    s, near = lab.settings, lab.profile.corpora.leakage_jaccard
    domains = {"pydocs": sides_of(domain_corpus, near_duplicate=near), "notes": sides_of(notes_corpus, near_duplicate=near)}
    if s.own_source:
        domains["own"] = sides_of(read_documents(lab.dataset(s.own_source)), near_duplicate=near)
    general = list(read_documents(lab.dataset(s.general_source))["text"]) if s.general_source else None
    texts = [lab.identity(uri, "dataset of text") for uri in (s.own_source, s.general_source) if uri]
    return adapter_sweep(
        domains, general, s, folder=lab.model(s.base), identities=[lab.identity(s.base, "base model"), *texts], device=lab.device,
        precision=lab.profile.compute.precision, seed=lab.seed, checkpoints=lab.checkpoints, progress=lab.progress,
    )  # fmt: skip


@lineage_asset(
    group="finetuning", kinds={"torch", "safetensors"}, settings="adapter", topics=("lora", "qlora"), pool="gpu", deep=True
)
def merged_adapter(lab: Lab, qlora_adapter: ModelArtifact) -> ModelArtifact:
    """The adapter in the weights of its base, de-quantised: a folder that transformers alone reads, and a GGUF file for llama.cpp."""
    from curriculum.adaptation.merging import merge_adapter

    return merge_adapter(
        qlora_adapter, lab.settings, folder=lab.model(lab.settings.base), base=lab.identity(lab.settings.base, "base model"), out=lab.out,
        device=lab.device, precision=lab.profile.compute.precision, progress=lab.progress,
    )  # fmt: skip


@lineage_asset(
    group="finetuning", kinds={"torch", "safetensors"}, settings="adapter", topics=("lora", "qlora"), pool="gpu", deep=True
)
def adapter_export(lab: Lab, qlora_adapter: ModelArtifact, merged_adapter: ModelArtifact, domain_corpus: pd.DataFrame) -> StudyResult:
    """The adapter beside NF4, beside the de-quantised base, merged, through safetensors and GGUF: each against the one before."""
    from curriculum.adaptation.export_study import export_study

    return export_study(
        qlora_adapter, merged_adapter, list(domain_corpus.loc[domain_corpus["split"] == "test", "text"]), lab.settings,
        folder=lab.model(lab.settings.base), base=lab.identity(lab.settings.base, "base model"), device=lab.device,
        precision=lab.profile.compute.precision, seed=lab.seed, progress=lab.progress,
    )  # fmt: skip


@lineage_asset(
    group="finetuning", kinds={"torch", "huggingface"}, settings=("domain_adaptation", "corpora"), topics=("domain_adaptation",), pool="gpu",
    deep=True,
)  # fmt: skip
def domain_adaptation_study(
    lab: Lab, domain_corpus: pd.DataFrame, notes_corpus: pd.DataFrame, notes_questions: pd.DataFrame
) -> StudyResult:
    """None, DAPT, TAPT, both, and a control on general text: perplexity of domain, task and general text, and a classifier's labels."""
    from curriculum.corpora.readers import read_documents
    from curriculum.corpora.sides import sides_of
    from curriculum.domain_adaptation.study import domain_adaptation_study
    from curriculum.domain_adaptation.texts import notes_sides
    from curriculum.tuning.tasks import question_parts, read_labelled

    s, near, own = lab.settings, lab.profile.corpora.leakage_jaccard, "packaged:notes"
    uris = [uri for uri in (s.domain_source, s.classification, s.general_source) if uri]
    if s.domain_source == own:
        domain = notes_sides(notes_corpus, notes_questions)
    else:
        domain = sides_of(read_documents(lab.dataset(s.domain_source)), near_duplicate=near)
    labelled = question_parts(notes_questions, notes_corpus) if s.classification == own else read_labelled(lab.dataset(s.classification))
    general = sides_of(read_documents(lab.dataset(s.general_source)) if s.general_source else domain_corpus, near_duplicate=near)
    return domain_adaptation_study(
        domain, labelled, general, s, folder=lab.model(s.base), device=lab.device, precision=lab.profile.compute.precision, seed=lab.seed,
        identities=[lab.identity(s.base, "base model"), *(lab.identity(uri, "dataset of text") for uri in uris)], checkpoints=lab.checkpoints,
        progress=lab.progress,
    )  # fmt: skip
