"""The values for Dagster's chart: what the chart would write of them, held by the installed dagster, dagster-k8s and Kubernetes models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema, get_tick_retention_settings
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.scheduler.instigation import TickStatus
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.launcher import K8sRunLauncher
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes.client import models

from tests.deploy.chart import container_context, image, instance, left_over
from tests.deploy.commands import parse

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "from the secret")


def valid(model: type, part: dict[str, Any]) -> Any:
    """A part of a manifest, read by Kubernetes' own model: a key it does not know is an error."""
    return k8s_model_from_dict(model, k8s_snake_case_dict(model, part))


def values() -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load((DEPLOY / "kubernetes/values.yaml").read_text()))  # a deep copy: its anchors are shared


def check(held: dict[str, Any]) -> dict[str, Any]:
    """Everything the values say, held by who reads it; dagster.yaml as the chart writes it.

    Raises:
        Exception: some validator refuses its part, or nothing reads it.
    """
    held = yaml.safe_load(yaml.dump(held, Dumper=NoAliases))
    written = instance(held)
    read = {"run_launcher": K8sRunLauncher.config_type(), "run_coordinator": QueuedRunCoordinator.config_type()}
    results = [process_config(schema, written[name]["config"]) for name, schema in read.items()]
    results.append(process_config(dagster_instance_config_schema(), written))
    if errors := [error.message for result in results for error in result.errors or []]:
        raise ValueError(errors)
    (deployment,) = held["dagster-user-deployments"].pop("deployments")
    pod(container_context(deployment), written["run_launcher"]["config"])
    for part, model in (("podSecurityContext", models.V1PodSecurityContext), ("securityContext", models.V1SecurityContext)):
        valid(model, deployment.pop(part))
    for secret in deployment.pop("envSecrets"):
        valid(models.V1SecretEnvSource, secret)
    images = {image(deployment), image(held["dagsterWebserver"])}
    parse(["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", str(deployment.pop("port")), *deployment.pop("dagsterApiGrpcArgs")])
    service = held["dagsterWebserver"].pop("service")
    generated = held.pop("generatePostgresqlPasswordSecret")
    if images != {"curriculum:0.1.0"} or service != {"type": "ClusterIP", "port": 80} or generated or deployment.pop("name") != "curriculum":
        raise ValueError(f"images {images}, service {service}, generated secret: {generated}")
    if left := left_over(held) + left_over(deployment):
        raise ValueError(f"the chart does not read {left}")
    return written


class NoAliases(yaml.SafeDumper):
    """Writes shared values out, so that taking a key from one does not take it from the other."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def pod(context: dict[str, Any], launcher: dict[str, Any]) -> None:
    """Read what a run's pod is made of by dagster-k8s, and its parts by Kubernetes' own models."""
    K8sContainerContext.create_from_config(context)
    parts = {"volumes": models.V1Volume, "volume_mounts": models.V1VolumeMount, "env": models.V1EnvVar}
    for name, model in parts.items():
        for part in context["k8s"][name]:
            valid(model, part)
    valid(models.V1ResourceRequirements, context["k8s"]["resources"])
    valid(models.V1PodSpec, {"containers": [], **launcher["run_k8s_config"]["pod_spec_config"]})
    valid(models.V1SecurityContext, launcher["security_context"])


def test_every_value_is_read_and_valid_by_who_reads_it() -> None:
    assert check(values())["run_launcher"]["class"] == "K8sRunLauncher"


def test_the_instance_is_the_one_of_dagster_yaml() -> None:
    written, own = check(values()), yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    assert set(own) <= set(written)
    defaults = {status: -1 for status in TickStatus} | {TickStatus.SKIPPED: 7}
    for kind in ("sensor", "schedule"):
        of_chart, of_file = (get_tick_retention_settings(read["retention"][kind], defaults) for read in (written, own))
        assert of_chart == of_file
    own["run_monitoring"].pop("poll_interval_seconds")  # with the launcher of one machine, which a cluster has no use for
    others = set(own) - {"retention", "run_launcher"}
    assert {key: written[key] for key in others} == {key: own[key] for key in others}


def test_an_instance_starts_from_what_the_chart_writes(tmp_path: Path) -> None:
    """With its own files in place of the two parts that need a server: Postgres and the cluster's API."""
    written = {key: value for key, value in check(values()).items() if key not in ("storage", "run_launcher")}
    (tmp_path / "dagster.yaml").write_text(yaml.dump(written))
    with dg.DagsterInstance.from_config(str(tmp_path)) as started:
        assert started.run_coordinator.dequeue_interval_seconds == 1 and started.run_monitoring_start_timeout_seconds == 180
        assert started.get_concurrency_config().pool_config.default_pool_limit == 1


def set_at(held: Any, path: list[Any], value: Any) -> None:
    for key in path[:-1]:
        held = held[key]
    held[path[-1]] = value


USER = ["dagster-user-deployments", "deployments", 0]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["concurrency", "pools", "defaultLimt"], 1, "default_limt"),
        (["retention", "sensr"], {"purgeAfterDays": 1}, "does not read .*retention.sensr"),
        (["retention", "schedule", "purgeAfterDays"], "ninety", "ninety"),
        (["dagsterDaemon", "runMonitoring", "startTimeoutSecnds"], 1, "start_timeout_secnds"),
        (["dagsterDaemon", "runCoordinator", "config", "queuedRunCoordinator", "dequeue"], 1, "dequeue"),
        (["runLauncher", "config", "k8sRunLauncher", "runK8sConfig", "podSpecConfig", "securityContext", "fsGruop"], 1000, "fsGruop"),
        (["runLauncher", "config", "k8sRunLauncher", "imagePullPolicies"], "Always", "does not read .*imagePullPolicies"),
        (["postgresql", "enabled"], True, "'postgresql': True"),
        (["postgresql", "postgresqlPassword"], "test", "does not read .*postgresqlPassword"),
        (["dagsterWebserver", "service", "type"], "LoadBalancer", "LoadBalancer"),
        ([*USER, "volumes", 0, "persistentVolumeClaim"], {"claim": "curriculum-state"}, "Unexpected keys .*'claim'"),
        ([*USER, "resources"], {"limit": {"memory": "8Gi"}}, 'unexpected config entry "limit"'),
        ([*USER, "dagsterApiGrpcArgs"], ["--modul", "pipelines.definitions"], "No such option"),
        ([*USER, "nodeSelectors"], {"disk": "ssd"}, "does not read .*nodeSelectors"),
        ([*USER, "includeConfigInLaunchedRuns"], {"enabled": False}, "without the state's volume"),
    ],
)
def test_a_mistake_in_the_values_is_caught(path: list[Any], value: Any, said: str) -> None:
    broken = yaml.safe_load(yaml.dump(values(), Dumper=NoAliases))
    set_at(broken, path, value)
    with pytest.raises(Exception, match=said):
        check(broken)


def test_the_versions_agree_and_the_claim_is_valid() -> None:
    text = (DEPLOY / "kubernetes/values.yaml").read_text()
    assert f"--version {dg.__version__} " in text
    claim = yaml.safe_load((DEPLOY / "kubernetes/state.yaml").read_text())
    read = valid(models.V1PersistentVolumeClaim, claim)
    (deployment,) = values()["dagster-user-deployments"]["deployments"]
    assert read.metadata.name == deployment["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert {"name": "CURRICULUM_HOME", "value": deployment["volumeMounts"][0]["mountPath"]} in deployment["env"]
