"""The services of deploy/compose.yaml as processes of this machine: their own commands, environments and health checks, in their order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from docs.screenshots import PROJECT, ask
from pipelines.daemon import end_group
from pipelines.drills.box import free_port
from pipelines.drills.postgres import program
from tests.deploy.test_compose import TEXT, interpolated
from tests.pipelines.test_postgres import server  # noqa: F401 - a fixture

pytestmark = pytest.mark.e2e
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def local(text: str, state: Path, ports: dict[str, int]) -> dict[str, Any]:
    """The compose file with its hosts, ports and volume replaced by ones of this machine."""
    password = {"POSTGRES_PASSWORD": "unused"}
    hosts = "MLFLOW_SERVER_ALLOWED_HOSTS: mlflow:5000"
    text = interpolated(text, **password).replace(hosts, "HOSTS").replace("0.0.0.0", "127.0.0.1").replace("/state", str(state))
    text = text.replace("CURRICULUM_CODE_HOST: code", "CURRICULUM_CODE_HOST: 127.0.0.1")
    for name, port in ports.items():
        inside = {"postgres": 5432, "mlflow": 5000, "code": 4000, "webserver": 3000}[name]
        text = re.sub(rf"\b(?:{name}|127\.0\.0\.1):{inside}\b", f"127.0.0.1:{port}", text).replace(f'"{inside}"', f'"{port}"')
    return dict(yaml.safe_load(text.replace("HOSTS", hosts))["services"])


def environment(service: dict[str, Any]) -> dict[str, str]:
    given = {name: value for name, value in service["environment"].items() if value is not None}
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT), **given}


def wait_healthy(name: str, service: dict[str, Any], process: subprocess.Popen[bytes], log: Path, patience: float = 90.0) -> None:
    deadline = time.monotonic() + patience
    while subprocess.run(service["healthcheck"]["test"][1:], env=environment(service), capture_output=True, check=False).returncode:
        said = log.read_text(errors="replace")[-1500:]
        assert process.poll() is None and time.monotonic() < deadline, f"{name} is not healthy after {patience:.0f} s: {said}"
        time.sleep(2)  # a check is a process that imports the orchestrator


@pytest.fixture
def services(server: str, tmp_path: Path) -> Iterator[dict[str, Any]]:  # noqa: F811
    ports = {name: free_port() for name in ("mlflow", "code", "webserver")} | {"postgres": int(server.rsplit(":", 1)[1].split("/")[0])}
    for statement in ("CREATE DATABASE dagster", (PROJECT / "deploy/mlflow.sql").read_text()):
        subprocess.run([program("psql"), server.replace("+psycopg2", ""), "-q", "-c", statement], check=True)
    composed, started = local(TEXT, tmp_path, ports), {}
    try:
        for name in ("mlflow", "code", "webserver", "daemon"):
            waits = set(composed[name]["depends_on"]) - {"postgres"}
            assert waits <= set(started), f"{name} would start before {waits}"
            log = tmp_path / f"{name}.log"
            with log.open("wb") as said:
                service = composed[name]
                started[name] = subprocess.Popen(
                    service["command"], cwd=PROJECT, env=environment(service), stdout=said, stderr=said, start_new_session=True
                )
            if "healthcheck" in service:
                wait_healthy(name, service, started[name], log)
        yield {"ports": ports, "url": f"http://127.0.0.1:{ports['webserver']}", "processes": started, "state": tmp_path}
    finally:
        for process in reversed(started.values()):
            end_group(process)


def test_a_run_goes_through_the_deployment(services: dict[str, Any]) -> None:
    url, journal = services["url"], f"http://127.0.0.1:{services['ports']['mlflow']}"
    selector = {"repositoryLocationName": "pipelines.definitions", "repositoryName": "__repository__", "jobName": "__ASSET_JOB"}
    params = {"selector": {**selector, "assetSelection": [{"path": ["shape_arithmetic"]}]}, "mode": "default"}
    launched = ask(url, LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    status, deadline = "", time.monotonic() + 120
    while status not in ("SUCCESS", "FAILURE") and time.monotonic() < deadline:
        time.sleep(0.5)
        status = ask(url, f'{{ runOrError(runId: "{launched["run"]["runId"]}") {{ ... on Run {{ status }} }} }}')["runOrError"]["status"]
    said = "\n".join((services["state"] / f"{name}.log").read_text(errors="replace")[-1500:] for name in services["processes"])
    assert status == "SUCCESS", said
    assert all(process.poll() is None for process in services["processes"].values())
    found = requests.get(f"{journal}/api/2.0/mlflow/experiments/get-by-name", {"experiment_name": "curriculum"}, timeout=30).json()
    runs = requests.post(
        f"{journal}/api/2.0/mlflow/runs/search", json={"experiment_ids": [found["experiment"]["experiment_id"]]}, timeout=30
    ).json()["runs"]
    assert [run["info"]["run_name"] for run in runs] == ["shape_arithmetic"]
    assert not list(services["state"].rglob("*.db")), "something of it is in SQLite, not in Postgres"
    seen = {host: requests.get(f"{journal}/api/2.0/mlflow/experiments/get", {"experiment_id": "0"}, headers={"Host": host}, timeout=30).status_code
            for host in ("mlflow:5000", "localhost:5000", "elsewhere.example:5000")}  # fmt: skip
    assert seen == {"mlflow:5000": 200, "localhost:5000": 200, "elsewhere.example:5000": 403}
