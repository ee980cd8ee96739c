"""The report card: the end of the lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.lineage import Lab, lineage_asset

if TYPE_CHECKING:
    from curriculum.artifacts import DirectoryArtifact
    from curriculum.results import StudyResult


@lineage_asset(group="analysis", kinds={"html"}, settings=("milestones", "floors"))
def report_card(
    lab: Lab,
    notes_study: StudyResult,
    shape_arithmetic: StudyResult,
    weight_bridges: StudyResult,
    model_families: StudyResult,
    attention_study: StudyResult,
    tokenizers_study: StudyResult,
    mini_transformer_report: StudyResult,
    qa_report: StudyResult,
    adapter_report: StudyResult,
    prompt_study: StudyResult,
    hybrid_search_report: StudyResult,
    reranker_report: StudyResult,
    verifier_calibration: StudyResult,
    rag_report: StudyResult,
    lm_eval_report: StudyResult,
) -> DirectoryArtifact:
    """One self-contained page: milestones on their reference task and on the stand-in, every check, every study."""
    from curriculum.artifacts import DirectoryArtifact
    from curriculum.report.card import write_card
    from curriculum.syllabus import load_syllabus

    write_card(load_syllabus(), lab.profile, lab.resources.artifacts.store(), lab.out / "report_card.html")
    return DirectoryArtifact(lab.out)
