"""Sensors: failed runs and checks are told to somebody, and changed files start a run. The daemon that ``make ui`` starts runs them."""

import json
from typing import Any

import dagster as dg

from assets.rows import OWN_CORPORA
from curriculum.rows.registry import ROW_STUDIES, own_corpora
from curriculum.sources import local_sources, stamp
from curriculum.storage import digest_of
from pipelines.jobs import OWN_JOB, rows_job
from resources.alerts import Alerts

OWN_CORPUS = "own_corpus_row"


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


# all code locations: a run of the command line has none, and would be told to nobody
@dg.run_failure_sensor(name="alert_on_failed_run", default_status=dg.DefaultSensorStatus.RUNNING, monitor_all_code_locations=True)
def alert_on_failed_run(context: dg.RunFailureSensorContext, alerts: Alerts) -> None:
    """A run failed: what broke it, and the checks that did not pass."""
    checks = failed_checks(context.instance, context.dagster_run.run_id)
    alerts.send(alert_of(context.dagster_run, "failed", context.failure_event.message or "", checks))


@dg.run_status_sensor(
    name="alert_on_failed_check", run_status=dg.DagsterRunStatus.SUCCESS, default_status=dg.DefaultSensorStatus.RUNNING,
    monitor_all_code_locations=True,
)  # fmt: skip
def alert_on_failed_check(context: dg.RunStatusSensorContext, alerts: Alerts) -> None:
    """A run succeeded with checks that did not pass: those that warn, which no run-failure sensor sees."""
    checks = failed_checks(context.instance, context.dagster_run.run_id)
    if checks:
        alerts.send(alert_of(context.dagster_run, "succeeded", "", checks))


def changed_files(profile: Any, job: str) -> dg.SensorDefinition:
    """A sensor on the profile's own files: when one is new, changed or gone, the lineage runs, and computes again what rests on it."""
    # corpora of one's own have sensors of their own
    return _watching("changed_files", sorted(local_sources(profile.model_dump(mode="json", exclude={"rows", "corpus"}))), job)


def changed_documents(profile: Any) -> list[dg.SensorDefinition]:
    """A sensor on the documents of the profile's corpus: when one is new, changed or gone, their index is brought up to date."""
    return [_watching("changed_documents", [profile.corpus.path], OWN_JOB)] if profile.corpus.path else []


def _watching(name: str, watched: list[str], job: str) -> dg.SensorDefinition:
    @dg.sensor(name=name, job_name=job, minimum_interval_seconds=60, description=f"Watches {', '.join(watched)}.")
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        present = json.dumps({uri: stamp(uri) for uri in watched})
        if context.cursor == present:
            return dg.SkipReason("no file has changed")
        known, first = json.loads(context.cursor or "{}"), context.cursor is None
        context.update_cursor(present)
        if first:
            return dg.SkipReason("the files as they are now are what later ones are compared with")
        changed = [uri for uri, value in json.loads(present).items() if known.get(uri) != value]
        return dg.RunRequest(run_key=digest_of(present)[:16], tags={"changed": ", ".join(changed)[:250]})

    return sensor


def own_corpora_sensor(profile: Any) -> dg.SensorDefinition:
    """A sensor on the user's corpora: a new or changed one is a partition that is made (again), one that is gone is one no more.

    Only those rows run. A partition that goes leaves its row in the store.
    """
    job = rows_job(OWN_CORPUS)

    @dg.sensor(name=OWN_CORPORA, job_name=job, minimum_interval_seconds=60, description="Watches the corpora of the profile's section rows.")
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        ROW_STUDIES[OWN_CORPUS].keys(profile)  # a name that cannot be a partition's is said here
        present = {name: stamp(source) for name, source in own_corpora(profile).items()}
        known = json.loads(context.cursor or "{}")
        if present == known:
            return dg.SkipReason("no corpus has changed" if present else "the profile's section rows names no corpora")
        changed = [name for name, value in present.items() if known.get(name) != value]
        partitions = dg.DynamicPartitionsDefinition(name=OWN_CORPORA)
        gone = [name for name in known if name not in present]
        requests: list[Any] = [partitions.build_add_request(changed)] if changed else []
        requests += [partitions.build_delete_request(gone)] if gone else []
        runs = [dg.RunRequest(run_key=f"{name}-{present[name]}", partition_key=name) for name in changed]
        return dg.SensorResult(run_requests=runs, dynamic_partitions_requests=requests, cursor=json.dumps(present))

    return sensor


def all_sensors(profile: Any, job: str) -> list[dg.SensorDefinition]:
    """Every sensor of the code location. Those on files are off until switched on."""
    return [alert_on_failed_run, alert_on_failed_check, changed_files(profile, job), own_corpora_sensor(profile), *changed_documents(profile)]
