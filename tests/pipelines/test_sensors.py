"""Alerts: what a failed run and a failed check send, received by a real HTTP server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from curriculum.alerts import send
from curriculum.errors import UserError
from curriculum.profile import load_profile
from pipelines.sensors import alert_on_failed_check, alert_on_failed_run, all_sensors, changed_files
from resources.alerts import Alerts
from tests.http_server import answering


class Receiver:
    """Keeps what is posted to it; the first ``refuse`` posts get a 503."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.refuse, self.url = 0, ""

    def reply(self, path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        self.refuse -= 1
        if self.refuse < 0:
            self.got.append(body)  # before the answer, which the sender waits for
        return (503 if self.refuse >= 0 else 204), None


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    with answering(made.reply) as address:
        made.url = f"{address}/hook"
        yield made


@dg.asset
def broken() -> None:
    """Fails."""
    raise ValueError("the disk is on fire")


@dg.asset
def sound() -> None:
    """Has nothing wrong with it."""


@dg.asset
def doubtful() -> None:
    """Has a check that warns."""


@dg.asset_check(asset=doubtful)
def quality() -> dg.AssetCheckResult:
    """Warns."""
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="0.4 misses 0.6")


def run(asset: Any, instance: dg.DagsterInstance) -> Any:
    job = dg.Definitions(assets=[asset], asset_checks=[quality] if asset is doubtful else [], jobs=[dg.define_asset_job("a_job")])
    return job.resolve_job_def("a_job").execute_in_process(instance=instance, raise_on_error=False)


def test_a_failed_run_is_told_with_its_error(receiver: Receiver) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(broken, instance)
        event = result.get_run_failure_event()
        context = dg.build_run_status_sensor_context(
            sensor_name="alert_on_failed_run", dagster_event=event, dagster_instance=instance, dagster_run=result.dagster_run,
            resources={"alerts": Alerts(webhook=receiver.url)},
        ).for_run_failure()  # fmt: skip
        alert_on_failed_run(context)
    (alert,) = receiver.got
    assert alert["status"] == "failed" and alert["job"] == "a_job" and alert["run_id"] == result.run_id and "broken" in alert["text"]


def test_a_check_that_warns_is_told_though_the_run_succeeded(receiver: Receiver) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for asset, expected in ((sound, 0), (doubtful, 1)):
            result = run(asset, instance)
            assert result.success
            context = dg.build_run_status_sensor_context(
                sensor_name="alert_on_failed_check", dagster_event=result.get_run_success_event(), dagster_instance=instance,
                dagster_run=result.dagster_run, resources={"alerts": Alerts(webhook=receiver.url)},
            )  # fmt: skip
            alert_on_failed_check(context)
            assert len(receiver.got) == expected
    assert receiver.got[0]["checks"] == [{"asset": "doubtful", "check": "quality", "severity": "WARN", "said": "0.4 misses 0.6"}]


def test_the_daemon_tells_of_runs_of_the_command_line_too(receiver: Receiver, tmp_path: Path) -> None:
    """A run that ``dagster job execute`` started names no code location, while the sensor that the daemon asks has one."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for sensor, asset in ((alert_on_failed_run, broken), (alert_on_failed_check, doubtful)):
            asked = {"instance": instance, "repository_name": "__repository__", "resources": {"alerts": Alerts(webhook=receiver.url)}}
            first = sensor.evaluate_tick(dg.build_sensor_context(**asked))
            run(asset, instance)
            sensor.evaluate_tick(dg.build_sensor_context(**asked, cursor=first.cursor))
    assert [alert["status"] for alert in receiver.got] == ["failed", "succeeded"]


def test_a_webhook_that_hiccups_gets_the_alert_and_one_that_is_gone_is_an_error() -> None:
    receiver = Receiver()
    with answering(receiver.reply) as url:
        receiver.refuse = 2
        send({"text": "again"}, url, pause=0.01)
        assert [a["text"] for a in receiver.got] == ["again"]
        receiver.refuse = 9
        with pytest.raises(UserError, match=r"in 3 attempts \(503\)"):
            send({"text": "never"}, url, pause=0.01)
    with pytest.raises(UserError, match=r"\(ConnectionError\)") as refused:
        send({"text": "nobody there"}, url, pause=0.01)
    assert url not in str(refused.value)
    with pytest.raises(UserError, match="no http address"):
        send({"text": "nowhere"}, "file:///etc/passwd")


def test_without_a_webhook_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    send({"text": "only here"})
    assert "only here" in caplog.text


def test_alerts_are_on_by_default_and_the_watch_on_files_is_not() -> None:
    status = {s.name: s.default_status for s in all_sensors(load_profile("starter"), "lineage")}
    on, off = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    assert status == {"alert_on_failed_run": on, "alert_on_failed_check": on, "changed_files": off, "own_corpora": off}


def test_a_changed_file_starts_one_run_and_an_unchanged_folder_none(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.md").write_text("one")
    profile = load_profile("starter", {"corpora": {"domain_source": f"path:{tmp_path}"}})
    sensor = changed_files(profile, "lineage")
    context = dg.build_sensor_context()
    assert isinstance(sensor(context), dg.SkipReason)  # the first look only remembers
    assert isinstance(sensor(context), dg.SkipReason)
    (tmp_path / "deep" / "a.md").write_text("two")  # the same name in another folder
    request = sensor(context)
    assert isinstance(request, dg.RunRequest) and str(tmp_path) in request.tags["changed"] and "packaged:notes" not in request.tags["changed"]
    assert isinstance(sensor(context), dg.SkipReason)
    (tmp_path / "a.md").unlink()
    again = sensor(context)
    assert isinstance(again, dg.RunRequest) and again.run_key != request.run_key
