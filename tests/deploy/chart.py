"""What Dagster's chart makes of our values, in Python: its templates need Helm and the chart, and neither is on every machine.

After the templates and the schema of the chart (helm/dagster in Dagster's repository): configmap-instance.yaml with helpers/instance for
dagster.yaml, k8sContainerContext of dagster-user-deployments for what a run's pod is given. Every key is taken out as it is read, so
that what is left over is what the chart would not read. The workflow of this repository renders the chart itself.
"""

from __future__ import annotations

import re
from typing import Any

_IMAGE = {"repository", "tag", "pullPolicy"}


def snake(value: Any) -> Any:
    """Nested mappings with keys in snake_case."""
    if not isinstance(value, dict):
        return value
    return {re.sub(r"(?<=[a-z0-9])[A-Z]", lambda upper: "_" + upper[0].lower(), key): snake(inner) for key, inner in value.items()}


def image(section: dict[str, Any]) -> str:
    """The image's name.

    Raises:
        ValueError: the chart's schema asks for repository, tag and pullPolicy.
    """
    named = section.pop("image")
    if set(named) != _IMAGE:
        raise ValueError(f"an image has {sorted(_IMAGE)}, not {sorted(named)}")
    return f"{named['repository']}:{named['tag']}"


def instance(values: dict[str, Any]) -> dict[str, Any]:
    """dagster.yaml as the chart writes it; what it reads is taken out of ``values``."""
    postgres, daemon, launcher = values["postgresql"], values["dagsterDaemon"], values["runLauncher"]
    storage = {
        "username": postgres.pop("postgresqlUsername"), "password": {"env": "DAGSTER_PG_PASSWORD"}, "port": 5432,
        "hostname": postgres.pop("postgresqlHost"), "db_name": postgres.pop("postgresqlDatabase"), "scheme": postgres.pop("postgresqlScheme"),
    }  # fmt: skip
    enabled = {"postgresql": postgres.pop("enabled"), **{k: values[k].pop("enabled") for k in ("concurrency", "retention")}}
    enabled["runCoordinator"] = daemon["runCoordinator"].pop("enabled")
    types = {daemon["runCoordinator"].pop("type"), launcher.pop("type")}
    if enabled != {"postgresql": False, "concurrency": True, "retention": True, "runCoordinator": True}:
        raise ValueError(f"sections that are on or off by mistake: {enabled}")
    if types != {"QueuedRunCoordinator", "K8sRunLauncher"}:
        raise ValueError(f"types {sorted(types)}")
    run = launcher["config"]["k8sRunLauncher"]
    run_k8s = {snake({part: 0}).popitem()[0]: inner for part, inner in run.pop("runK8sConfig").items()}
    written = {
        "storage": {"postgres": {"postgres_db": storage}},
        "run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": {
            "dagster_home": "/opt/dagster/dagster_home", "instance_config_map": "curriculum-dagster-instance", "load_incluster_config": True,
            "postgres_password_secret": values["global"].pop("postgresqlSecretName"), "job_namespace": "default",
            "image_pull_policy": run.pop("imagePullPolicy"), "security_context": run.pop("securityContext"), "run_k8s_config": run_k8s,
        }},
        "run_coordinator": {
            "module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator",
            "config": snake(daemon["runCoordinator"]["config"].pop("queuedRunCoordinator")),
        },
        "run_monitoring": snake(daemon.pop("runMonitoring")),
        "concurrency": snake({"pools": values["concurrency"].pop("pools"), "runs": values["concurrency"].pop("runs")}),
        "retention": snake({"schedule": values["retention"].pop("schedule"), "sensor": values["retention"].pop("sensor")}),
        "telemetry": {"enabled": values["telemetry"].pop("enabled")},
        **values.pop("additionalInstanceConfig"),
    }  # fmt: skip
    image(daemon)
    return written


def container_context(deployment: dict[str, Any]) -> dict[str, Any]:
    """What a run's pod is given of its code location, ``includeConfigInLaunchedRuns`` being on; read keys are taken out."""
    if deployment.pop("includeConfigInLaunchedRuns") != {"enabled": True}:
        raise ValueError("runs would start without the state's volume")
    return {"k8s": {
        "namespace": "default", "service_account_name": "curriculum", "image_pull_policy": deployment["image"]["pullPolicy"],
        "env_secrets": [secret["name"] for secret in deployment["envSecrets"]], "env": deployment.pop("env"),
        "volumes": deployment.pop("volumes"), "volume_mounts": deployment.pop("volumeMounts"), "resources": deployment.pop("resources"),
    }}  # fmt: skip


def left_over(value: Any) -> list[str]:
    """The paths of every value that nobody took out."""
    if isinstance(value, dict):
        return [f"{key}.{inner}" if inner else key for key, held in value.items() for inner in left_over(held)]
    if isinstance(value, list):
        return [inner for held in value for inner in left_over(held)]
    return [""]
