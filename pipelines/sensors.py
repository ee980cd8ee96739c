"""Sensors: a failed run and a failed check are told to somebody. They run with the daemon that ``make ui`` starts."""

from typing import Any

import dagster as dg

from resources.alerts import Alerts


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[dict[str, str]]:
    """The checks that did not pass in a run: asset, check, severity and what it said."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    found = [r.event_log_entry.dagster_event.asset_check_evaluation_data for r in records if r.event_log_entry.dagster_event]
    return [
        {"asset": c.asset_key.to_user_string(), "check": c.check_name, "severity": c.severity.value, "said": c.description or ""}
        for c in found
        if not c.passed
    ]


def alert_of(run: dg.DagsterRun, status: str, error: str, checks: list[dict[str, str]]) -> dict[str, Any]:
    """The body of an alert; ``text`` is what a chat shows."""
    named = ", ".join(f"{c['asset']}.{c['check']} ({c['severity']})" for c in checks)
    parts = [f"run {run.run_id[:8]} of {run.job_name} {status}", f"checks that did not pass: {named}" if named else "", error]
    return {"text": "; ".join(filter(None, parts)), "run_id": run.run_id, "job": run.job_name, "status": status, "error": error, "checks": checks}


@dg.run_failure_sensor(name="alert_on_failed_run", default_status=dg.DefaultSensorStatus.RUNNING)
def alert_on_failed_run(context: dg.RunFailureSensorContext, alerts: Alerts) -> None:
    """A run failed: what broke it, and the checks that did not pass."""
    checks = failed_checks(context.instance, context.dagster_run.run_id)
    alerts.send(alert_of(context.dagster_run, "failed", context.failure_event.message or "", checks))


@dg.run_status_sensor(
    name="alert_on_failed_check", run_status=dg.DagsterRunStatus.SUCCESS, default_status=dg.DefaultSensorStatus.RUNNING
)
def alert_on_failed_check(context: dg.RunStatusSensorContext, alerts: Alerts) -> None:
    """A run succeeded with checks that did not pass: those that warn, which no run-failure sensor sees."""
    checks = failed_checks(context.instance, context.dagster_run.run_id)
    if checks:
        alerts.send(alert_of(context.dagster_run, "succeeded", "", checks))


def all_sensors() -> list[dg.SensorDefinition]:
    """Every sensor of the code location."""
    return [alert_on_failed_run, alert_on_failed_check]
