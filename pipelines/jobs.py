"""Jobs: the whole lineage, and each part of it with everything it needs."""

from typing import Any

import dagster as dg

LINEAGE = "lineage"
_PROGRESS = {"loggers": {"progress": {"config": {}}}}
GROUPS = ("corpora", "foundations", "finetuning", "prompting", "search", "rag", "analysis")


def all_jobs() -> list[Any]:
    """``lineage`` materialises every asset; a job named after a group materialises that group alone."""
    jobs = [dg.define_asset_job(LINEAGE, selection="*", description="Every asset, from corpora to the report card.", config=_PROGRESS)]
    for group in GROUPS:
        selection = dg.AssetSelection.groups(group)
        jobs.append(dg.define_asset_job(group, selection=selection, description=f"The assets of group {group}.", config=_PROGRESS))
    return jobs
