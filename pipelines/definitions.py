"""The code location: every asset, check, job, schedule and resource, assembled in one place.

Loading it imports the standard library, dagster, pydantic and yaml only; a test holds that.
"""

import os
import warnings

import dagster as dg

from assets import (
    adaptation,
    adapter_studies,
    alignment,
    analysis,
    compression,
    corpora,
    embedding,
    expansion,
    foundations,
    inference,
    late_interaction,
    multi_hop,
    own_corpus,
    parallelism,
    prompting,
    rag,
    reading,
    report,
    reranking,
    rows,
    search,
    search_tuning,
    vector_search,
)
from curriculum.profile import load_profile
from curriculum.syllabus import load_syllabus
from pipelines.guardrails import bar_checks, regression_check, table_check
from pipelines.jobs import LINEAGE, all_jobs, own_corpus_job
from pipelines.progress import progress_logger
from pipelines.promotions import promotions
from pipelines.schedules import all_schedules, guardrails_job
from pipelines.sensors import all_sensors
from resources.build import build_resources, home

warnings.filterwarnings("ignore", category=dg.BetaWarning)

ASSET_MODULES = [
    corpora, foundations, reading, adaptation, inference, prompting, search, embedding, reranking, rag, analysis, report, rows, parallelism,
    adapter_studies, alignment, vector_search, late_interaction, search_tuning, expansion, compression, multi_hop,
]  # fmt: skip
TABLE_IDS = {
    "pydocs_corpus": "doc_id", "notes_corpus": "doc_id", "notes_questions": "question_id", "labelled_claims": "claim_id",
    "domain_corpus": "doc_id", "qa_dataset": "example_id", "prompt_cases": "case_id", "passages": "passage_id",
    "retrieval_tracks": "query_id", "rag_answers": "question_id", "preference_pairs": "pair_id",
}


def build_definitions(profile_name: str) -> dg.Definitions:
    """The definitions of one profile."""
    syllabus, profile = load_syllabus(), load_profile(profile_name)
    fresh = os.environ.get("CURRICULUM_FRESH") == "1"
    return dg.Definitions(
        assets=[
            *dg.load_assets_from_modules(ASSET_MODULES), *(make(profile) for make in rows.ROW_MAKERS.values()), *promotions(syllabus, profile),
            *own_corpus.own_corpus_assets(profile),
        ],
        asset_checks=[
            *bar_checks(syllabus, profile),
            *(regression_check(r) for r in syllabus.regressions),
            *(table_check(a, c) for a, c in TABLE_IDS.items()),
        ],
        jobs=[*all_jobs(), *own_corpus_job(profile), guardrails_job()],
        schedules=all_schedules(),
        sensors=all_sensors(profile, LINEAGE),
        resources=build_resources(profile_name, home(), fresh=fresh),
        executor=dg.in_process_executor,
        loggers={"progress": progress_logger},
    )


defs = build_definitions(os.environ.get("CURRICULUM_PROFILE", "starter"))
