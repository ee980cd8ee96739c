"""Jobs: the whole lineage, and each part of it with everything it needs."""

from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph  # no public name for either; the pinned version has them here
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.lineage import DEEP
from curriculum.rows.registry import ROW_STUDIES

LINEAGE = "lineage"
_PROGRESS = {"loggers": {"progress": {"config": {}}}}
GROUPS = ("corpora", "foundations", "finetuning", "prompting", "search", "rag", "analysis")
OWN, OWN_JOB = "own_corpus", "corpus"  # the group and the job of the user's own documents
STUDIES = {"all_cases": "hallucination_report"}  # one deep study alone. job -> asset: the two may not share a name


def rows_job(asset: str) -> str:
    """The job that makes the rows of ``asset``, one run a partition: ``fusion_row`` -> ``fusion_rows``."""
    return f"{asset}s"


class RowsJob(UnresolvedAssetJobDefinition):
    """A job that makes a run a partition, of an asset that allows a range of them in one (``dagster asset materialize --partition-range``).

    ``dagster job backfill`` queues a run a partition whatever the asset allows, and the UI's backfill page then looks for the runs of
    ranges: it ends in a KeyError unless the job says what is so. Dagster takes this from the assets and lets no job say it.
    """

    def resolve(self, asset_graph: AssetGraph, **more: Any) -> dg.JobDefinition:
        one = dg.BackfillPolicy.multi_run(1)
        assets = [each.with_attributes(backfill_policy=one) if each.backfill_policy else each for each in asset_graph.assets_defs]
        return super().resolve(AssetGraph.from_assets(assets), **more)


def own_corpus_job(profile: Any) -> list[Any]:
    """``corpus`` brings the index of the profile's own documents up to date and measures it; there is none where it names no corpus."""
    if not profile.corpus.path:
        return []
    selection = dg.AssetSelection.groups(OWN).upstream()
    return [dg.define_asset_job(OWN_JOB, selection=selection, description=f"The documents in {profile.corpus.path}.", config=_PROGRESS)]


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
        selection = dg.AssetSelection.assets(asset)
        jobs.append(RowsJob(rows_job(asset), selection=selection, description=f"{asset}, a run a partition.", config=_PROGRESS))
    return jobs
