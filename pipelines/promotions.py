"""What is promoted, and past which gate: candidate -> evidence -> promoted."""

from typing import Any

import dagster as dg

from curriculum.evaluation.gate import active_bars
from curriculum.syllabus import Syllabus
from pipelines.guardrails import blocking_names, promotion
from pipelines.jobs import OWN

PROMOTIONS = {
    "promoted_reader": {"candidate": "qa_reader", "evidence": "qa_report", "group": "finetuning"},
    "promoted_adapter": {"candidate": "qlora_adapter", "evidence": "adapter_report", "group": "finetuning"},
    "promoted_index": {
        "candidate": "search_index", "evidence": "hybrid_search_report", "group": "search",
        "measured": ("bm25_index", "dense_index"),
    },
    "promoted_embedder": {"candidate": "embedder", "evidence": "embedder_report", "group": "search", "deep": True},
    "promoted_search_settings": {"candidate": "search_settings", "evidence": "search_tuning_study", "group": "search", "deep": True},
    "promoted_reranker": {"candidate": "reranker", "evidence": "reranker_report", "group": "search"},
    "promoted_verifier": {"candidate": "support_verifier", "evidence": "verifier_calibration", "group": "rag"},
    # that no threshold keeps the risk is a finding, not a fault: its checks warn, and its refusal fails no run
    "promoted_abstention": {
        "candidate": "abstention_threshold", "evidence": "abstention_study", "group": "rag", "deep": True,
        "bars": ("claim_abstention_study_threshold", "claim_abstention_study_risk_over_target"),
    },
}
# where the profile names a corpus
OWN_PROMOTIONS = {"promoted_own_corpus_index": {"candidate": "own_corpus_index", "evidence": "own_corpus_report", "group": OWN}}


def promotions(syllabus: Syllabus, profile: Any) -> list[dg.AssetsDefinition]:
    """One promoted asset a candidate, gated by the blocking checks in force on its evidence and by the bars that its wiring names."""
    held = active_bars(syllabus, profile)
    return [
        promotion(
            name,
            description=f"The version of {wiring['candidate']} that passed the gate on {wiring['evidence']}.",
            checks=blocking_names(syllabus, profile, wiring["evidence"]),
            **{**wiring, "bars": {bar: held[bar] for bar in wiring.get("bars", ())}},
        )
        for name, wiring in {**PROMOTIONS, **(OWN_PROMOTIONS if profile.corpus.path else {})}.items()
    ]
