"""Schedules: weekly retraining and nightly guardrails. Off until switched on in the UI or by ``dagster schedule start``."""

from typing import Any

import dagster as dg

from pipelines.jobs import LINEAGE

GUARDRAILS = "guardrails"


def guardrails_job() -> Any:
    """Every check, against the latest version of every asset; nothing is materialised."""
    return dg.define_asset_job(GUARDRAILS, selection=dg.AssetSelection.all_asset_checks(), description="Every check, no assets.")


def all_schedules() -> list[dg.ScheduleDefinition]:
    """Sunday 03:00 retraining, 02:00 nightly checks (the code location's time zone is UTC)."""
    return [
        dg.ScheduleDefinition(name="weekly_retraining", cron_schedule="0 3 * * 0", job_name=LINEAGE),
        dg.ScheduleDefinition(name="nightly_guardrails", cron_schedule="0 2 * * *", job_name=GUARDRAILS),
    ]
