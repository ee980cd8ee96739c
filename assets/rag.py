"""Retrieval-augmented answers: the support verifier, its calibration, the answers, and their evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    import pandas as pd

    from curriculum.artifacts import DirectoryArtifact, IndexArtifact, ModelArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="rag", kinds={"torch"}, settings="verifier", topics=("faithfulness",), pool="gpu")
def support_verifier(lab: Lab, qa_dataset: pd.DataFrame, labelled_claims: pd.DataFrame) -> ModelArtifact:
    """A cross-encoder over (passage, claim), trained on claims derived from questions; its threshold is chosen on dev claims."""
    from curriculum.grounding.training import train_verifier

    return train_verifier(
        qa_dataset, labelled_claims, lab.settings, model=lab.model(lab.settings.model), out=lab.out,
        checkpoints=lab.checkpoints, progress=lab.progress, seed=lab.seed, device=lab.device, precision=lab.compute.precision,
    )  # fmt: skip


@lineage_asset(group="rag", kinds={"scikitlearn"}, settings="verifier", topics=("faithfulness",), pool="gpu")
def verifier_calibration(lab: Lab, support_verifier: ModelArtifact, labelled_claims: pd.DataFrame) -> StudyResult:
    """The verifier's agreement with human labels on held-out claims, beside cosine similarity and token containment."""
    from curriculum.grounding.calibration import calibrate
    from curriculum.grounding.verifier import SupportVerifier

    verifier = SupportVerifier.load(support_verifier.path, lab.device)
    encoder = lab.model(lab.settings.baseline_encoder)
    result = calibrate(verifier, labelled_claims, lab.settings, encoder=encoder, seed=lab.seed, device=lab.device)
    result.identities.append(lab.identity(lab.settings.model, "model"))
    return result


@lineage_asset(
    group="rag", kinds={"scikitlearn"}, settings=("verifier_transfer", "verifier"), topics=("faithfulness",), pool="gpu", deep=True
)
def verifier_transfer_study(lab: Lab, support_verifier: ModelArtifact, qa_dataset: pd.DataFrame) -> StudyResult:
    """The verifier on claims it was not trained on: made from the test questions, and the profile's own labelled sets."""
    from curriculum.cells import Cells
    from curriculum.grounding.transfer import made_claims, named_sets, verifier_transfer_study
    from curriculum.grounding.verifier import SupportVerifier

    training = lab.profile.verifier
    sets = named_sets(made_claims(qa_dataset, training, seed=lab.seed), lab.settings.sets, lab.dataset)
    result = verifier_transfer_study(
        SupportVerifier.load(support_verifier.path, lab.device), sets, lab.settings, encoder=lab.model(training.baseline_encoder),
        encoder_name=training.baseline_encoder, cells=Cells(lab.checkpoints, lab.progress), version=support_verifier.path.name,
        seed=lab.seed, device=lab.device,
    )  # fmt: skip
    result.identities = [lab.identity(uri, "labelled claims") for uri in lab.settings.sets]
    return result


@lineage_asset(group="rag", kinds={"torch"}, settings=("rag", "retrieval", "generator"), topics=("answer_generation",), pool="gpu")
def rag_answers(
    lab: Lab,
    promoted_index: IndexArtifact,
    passages: pd.DataFrame,
    promoted_reranker: ModelArtifact,
    promoted_verifier: ModelArtifact,
    promoted_reader: ModelArtifact,
    notes_questions: pd.DataFrame,
) -> pd.DataFrame:
    """Answers with their citations: retrieved, reranked, read or generated, verified, and withheld where nothing supports them."""
    from curriculum.cells import Cells
    from curriculum.rag.answering import answer_questions
    from curriculum.rag.assembly import build_pipeline
    from curriculum.rag.questions import asked_questions

    parts = (promoted_index, promoted_reranker, promoted_verifier, promoted_reader)
    pipeline = build_pipeline(
        *parts, lab.profile.rag, lab.profile.retrieval, model=lab.model, generator=lab.generator, device=lab.device, seed=lab.seed
    )
    questions = asked_questions(notes_questions, lab.profile.rag, lab.profile.retrieval, lab.dataset)
    cells = Cells(lab.checkpoints, lab.progress)
    return answer_questions(questions, passages, pipeline, lab.settings, cells=cells, progress=lab.progress, seed=lab.seed)


@lineage_asset(
    group="rag", kinds={"torch"}, settings=("abstention", "rag", "retrieval", "generator"), topics=("answer_generation",), pool="gpu", deep=True
)
def abstention_study(
    lab: Lab,
    rag_answers: pd.DataFrame,
    promoted_index: IndexArtifact,
    passages: pd.DataFrame,
    promoted_reranker: ModelArtifact,
    promoted_verifier: ModelArtifact,
    promoted_reader: ModelArtifact,
    notes_questions: pd.DataFrame,
) -> StudyResult:
    """From which support a draft is given out: chosen on answers to dev questions by risk and coverage, measured on the test answers."""
    from curriculum.cells import Cells
    from curriculum.rag.answering import answer_questions
    from curriculum.rag.assembly import build_pipeline
    from curriculum.rag.calibrated import answered_by
    from curriculum.rag.questions import asked_questions
    from curriculum.rag.selective import abstention_study, calibration_questions

    parts = (promoted_index, promoted_reranker, promoted_verifier, promoted_reader)
    pipeline = build_pipeline(
        *parts, lab.profile.rag, lab.profile.retrieval, model=lab.model, generator=lab.generator, device=lab.device, seed=lab.seed
    )
    known = asked_questions(notes_questions, lab.profile.rag, lab.profile.retrieval, lab.dataset)
    questions, asked = calibration_questions(known, rag_answers["question_id"], lab.profile.rag, lab.settings.dev_questions)
    cells = Cells(lab.checkpoints, lab.progress)
    dev = answer_questions(questions, passages, pipeline, asked, cells=cells, progress=lab.progress, seed=lab.seed)
    return abstention_study(
        dev, rag_answers, lab.settings, verifier_threshold=pipeline.verifier.threshold, seed=lab.seed, chosen_on=asked.split,
        calibrated_for=answered_by(lab.profile.rag, lab.versions, lambda: lab.pinned(lab.profile.generator.model)),
    )  # fmt: skip


@lineage_asset(group="rag", kinds={"json"}, topics=("answer_generation",), deep=True)
def abstention_threshold(lab: Lab, abstention_study: StudyResult) -> DirectoryArtifact:
    """The support that the study chose, as JSON with what it was calibrated for: a candidate for what the service abstains below."""
    from curriculum.rag.calibrated import write_calibrated

    return write_calibrated(abstention_study, lab.out)


@lineage_asset(group="rag", kinds={"ragas"}, settings="rag", topics=("answer_generation", "faithfulness"), pool="gpu")
def rag_report(lab: Lab, rag_answers: pd.DataFrame, promoted_verifier: ModelArtifact, passages: pd.DataFrame) -> StudyResult:
    """Groundedness (ragas, judged by our verifier), answer F1 and answer rate together; citations; context precision and recall."""
    from curriculum.grounding.verifier import SupportVerifier
    from curriculum.rag.report import report_rag

    verifier = SupportVerifier.load(promoted_verifier.path, lab.device)
    return report_rag(rag_answers, verifier, passages, lab.settings, seed=lab.seed)


@lineage_asset(
    group="rag", kinds={"torch"}, settings=("rag", "generator"), topics=("hallucination_sources",), pool="gpu", deep=True
)
def attribution_study(
    lab: Lab, rag_answers: pd.DataFrame, passages: pd.DataFrame, promoted_verifier: ModelArtifact, promoted_reader: ModelArtifact
) -> StudyResult:
    """Each wrong draft attributed to one of four sources, rerun with the answer's passage and with none; planted errors recovered."""
    from curriculum.cells import Cells
    from curriculum.grounding.verifier import SupportVerifier
    from curriculum.rag.assembly import build_answerer
    from curriculum.rag.attribution import attribution_study

    answerer = build_answerer(lab.settings, reader=promoted_reader.path, generator=lab.generator, device=lab.device, seed=lab.seed)
    verifier = SupportVerifier.load(promoted_verifier.path, lab.device)
    return attribution_study(rag_answers, passages, verifier, answerer, lab.settings, cells=Cells(lab.checkpoints, lab.progress), seed=lab.seed)
