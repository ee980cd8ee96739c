"""Jobs: the whole lineage, and each part of it with everything it needs."""

from typing import Any

import dagster as dg

from assets.lineage import DEEP
from curriculum.rows.registry import ROW_STUDIES

LINEAGE = "lineage"
_PROGRESS = {"loggers": {"progress": {"config": {}}}}
GROUPS = ("corpora", "foundations", "finetuning", "prompting", "search", "rag", "analysis")
STUDIES = {"all_cases": "hallucination_report"}  # one deep study alone. job -> asset: the two may not share a name


def rows_job(asset: str) -> str:
    """The job that makes the rows of ``asset``, one run a partition: ``fusion_row`` -> ``fusion_rows``."""
    return f"{asset}s"


def all_jobs() -> list[Any]:
    """``lineage`` materialises every asset but the deep studies; a job named after a group, that group with its deep studies.

    A job of ``STUDIES`` materialises one deep study and what it needs. What is unchanged is reused, so a job costs what it adds.
    Rows and their tables are in none of them: a job has partitions of one kind, so each row-maker has a job of its own.
    """
    rows = dg.AssetSelection.assets(*ROW_STUDIES).downstream()
    everything = dg.AssetSelection.all() - dg.AssetSelection.tag(*next(iter(DEEP.items())))
    jobs = [dg.define_asset_job(LINEAGE, selection=everything, description="Every asset, from corpora to the report card.", config=_PROGRESS)]
    for job, study in STUDIES.items():
        selection = dg.AssetSelection.assets(study).upstream()
        jobs.append(dg.define_asset_job(job, selection=selection, description=f"{study}, and what it needs.", config=_PROGRESS))
    for group in GROUPS:
        selection = (dg.AssetSelection.groups(group) - rows).upstream()
        jobs.append(dg.define_asset_job(group, selection=selection, description=f"Group {group}, and what it needs.", config=_PROGRESS))
    for asset in ROW_STUDIES:
        jobs.append(dg.define_asset_job(rows_job(asset), selection=[asset], description=f"{asset}, a run a partition.", config=_PROGRESS))
    return jobs
