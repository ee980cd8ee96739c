"""Jobs: the whole lineage, and each part of it with everything it needs."""

from typing import Any

import dagster as dg

from assets.lineage import BY_ITSELF

LINEAGE = "lineage"
_PROGRESS = {"loggers": {"progress": {"config": {}}}}
GROUPS = ("corpora", "foundations", "finetuning", "prompting", "search", "rag", "analysis")
STUDIES = {"all_cases": "hallucination_report"}  # job -> asset: the two may not share a name


def all_jobs() -> list[Any]:
    """``lineage`` materialises every asset but the long studies; a job named after a group materialises that group alone.

    A long study has a job of its own, which also materialises what it needs.
    """
    everything = dg.AssetSelection.all() - dg.AssetSelection.groups(BY_ITSELF)
    jobs = [dg.define_asset_job(LINEAGE, selection=everything, description="Every asset, from corpora to the report card.", config=_PROGRESS)]
    for job, study in STUDIES.items():
        selection = dg.AssetSelection.assets(study).upstream()
        jobs.append(dg.define_asset_job(job, selection=selection, description=f"{study}, and what it needs.", config=_PROGRESS))
    for group in GROUPS:
        selection = dg.AssetSelection.groups(group)
        jobs.append(dg.define_asset_job(group, selection=selection, description=f"The assets of group {group}.", config=_PROGRESS))
    return jobs
