"""The compose file: valid by the specification's own rules, and true of this project: what it sets is read, what it starts exists."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import compose_spec
import dagster as dg
import mlflow.cli
import pytest
import yaml
from dagster._core.workspace.load import location_origins_from_yaml_paths
from huggingface_hub.utils import _auth

from tests.deploy.commands import parse

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
OURS = ("mlflow", "code", "webserver", "daemon")
OF_THE_POSTGRES_IMAGE = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}


def interpolated(text: str, **given: str) -> str:
    """``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` replaced, as the specification says.

    Raises:
        ValueError: a variable that must be given is not, or is empty.
    """

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found["name"], found["kind"], found["rest"] or ""
        if given.get(name):
            return given[name]
        if kind == ":?":
            raise ValueError(f"{name}: {rest}")
        return rest

    return re.sub(r"\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\}", value, text)


def composed(text: str = TEXT) -> dict[str, Any]:
    """The file as it is run, read by the specification's own types, with every reference to a volume and a service followed.

    Raises:
        ValueError: it breaks the specification; the message has the line.
    """
    full = interpolated(text, POSTGRES_PASSWORD="0secret0")
    options = compose_spec.PyOptions(apply_merge=True)
    options.from_yaml(full).validate()
    read: dict[str, Any] = yaml.safe_load(full)
    for name, service in read["services"].items():
        if unknown := set(service.get("depends_on", {})) - set(read["services"]):
            raise ValueError(f"{name} waits for {sorted(unknown)}, which the file does not have")
        named = {mount.split(":")[0] for mount in service.get("volumes", []) if not mount.startswith((".", "/"))}
        if unknown := named - set(read["volumes"]):
            raise ValueError(f"{name} mounts {sorted(unknown)}, which the file does not have")
    return read


def test_the_file_is_valid() -> None:
    assert set(composed()["services"]) == {"postgres", *OURS}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("healthcheck:", "healthchek:", "healthchek"),
        ('ports: ["127.0.0.1:${MLFLOW_PORT:-5000}:5000"]', 'ports: ["127.0.0.1:port:5000"]', "port"),
        ("condition: service_healthy", "condition: service_helthy", "service_helthy"),
        ('volumes: ["state:/state:ro"]', 'volumes: ["stat:/state:ro"]', "stat"),
        ("{code: {condition", "{cod: {condition", "cod"),
    ],
)
def test_a_mistake_in_the_file_is_caught(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=said):
        composed(TEXT.replace(old, new))


def secrets_in(text: str) -> list[str]:
    """Passwords and keys that stand in a file: a value beside such a name, or one in an address, that is no reference to a variable."""
    beside = r"(?im)^\W*\w*(?:password|secret|token|api_key)[ \t]*[:=][ \t]*['\"]?(?!\$\{|true\b|false\b)[^\s#].*$"
    return [found[0].strip() for pattern in (beside, r"://\w+:(?!\$\{)[^@/\s]+@") for found in re.finditer(pattern, text)]


def test_no_password_is_written_down_and_none_may_be_missing() -> None:
    for name in ("compose.yaml", "env.example", "kubernetes/values.yaml", "Dockerfile"):
        assert secrets_in((DEPLOY / name).read_text()) == [], name
    for planted in ("      POSTGRES_PASSWORD: curriculum", "  postgresqlPassword: test", "OPENAI_API_KEY='sk-1'", "postgresql://u:pw@postgres:5432/x"):
        assert secrets_in(f"a: 1\n{planted}\n"), planted
    with pytest.raises(ValueError, match=r"POSTGRES_PASSWORD: set it in deploy/\.env"):
        interpolated(TEXT)


def test_only_what_a_person_opens_is_published_and_only_on_this_machine() -> None:
    published = {name: service["ports"] for name, service in composed()["services"].items() if "ports" in service}
    assert published == {"mlflow": ["127.0.0.1:5000:5000"], "webserver": ["127.0.0.1:3000:3000"]}


def names_read() -> set[str]:
    """Every environment variable that this project, its workspace file, MLflow's server or the hub's client reads."""
    sources = [path.read_text() for package in ("curriculum", "resources", "pipelines") for path in (PROJECT / package).rglob("*.py")]
    ours = set(re.findall(r"\b(?:CURRICULUM_[A-Z_]+|MLFLOW_TRACKING_URI|OPENAI_API_KEY)\b", "\n".join([*sources, (DEPLOY / "workspace.yaml").read_text()])))
    server = {str(option.envvar) for option in mlflow.cli.server.params if option.envvar}
    hub = set(re.findall(r"HF_TOKEN\b", inspect.getsource(_auth)))
    return ours | server | hub


def test_every_variable_is_one_that_is_read() -> None:
    services, read = composed()["services"], names_read()
    assert {"CURRICULUM_HOME", "MLFLOW_BACKEND_STORE_URI", "HF_TOKEN"} <= read
    for name in OURS:
        assert set(services[name]["environment"]) <= read, name
    assert set(services["postgres"]["environment"]) == OF_THE_POSTGRES_IMAGE
    examples = set(re.findall(r"^#?([A-Z_]+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    assert examples <= read | OF_THE_POSTGRES_IMAGE


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_and_takes_its_arguments(name: str) -> None:
    service = composed()["services"][name]
    outer = parse(service["command"])
    inner = parse(outer["command"]) if service["command"][0] == "curriculum" else outer
    port = {"mlflow": 5000, "code": 4000, "webserver": 3000, "daemon": None}[name]
    assert inner.get("port") == port
    health = service.get("healthcheck", {}).get("test", [])
    assert health[:2] in ([], ["CMD", "python"]) or parse(health[1:])["port"] == port


def test_a_program_that_does_not_exist_is_caught() -> None:
    with pytest.raises(ValueError, match="dagster-deamon"):
        parse(["dagster-deamon", "run"])
    with pytest.raises(Exception, match="No such"):
        parse(["dagster", "api", "grpcs"])


def test_the_workspace_is_the_code_service(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = composed()["services"]["webserver"]["environment"]
    for name in ("CURRICULUM_CODE_HOST", "CURRICULUM_CODE_PORT"):
        monkeypatch.setenv(name, environment[name])
    (origin,) = location_origins_from_yaml_paths([str(DEPLOY / "workspace.yaml")])
    module = parse(parse(composed()["services"]["code"]["command"])["command"])["module_name"]
    assert (origin.host, origin.port, origin.location_name) == ("code", 4000, module)


def test_the_image_is_installed_as_the_makefile_installs() -> None:
    def installs(text: str) -> list[list[str]]:
        lines = [line.split("pip install", 1)[1] for line in text.splitlines() if "pip install" in line]
        return [sorted(set(shlex.split(line)) - {"--progress-bar", "on", "--no-cache-dir"}) for line in lines]

    recipe = (PROJECT / "Makefile").read_text().split("$(VENV)/.ready:")[1].split("\nrun:")[0]
    text = (DEPLOY / "Dockerfile").read_text()
    assert installs(text) == installs(recipe) and len(installs(text)) == 2
    assert "FROM python:3.11-" in text and "USER curriculum" in text
    copied = (DEPLOY.parent / ".dockerignore").read_text().split()
    assert not {"deploy", "baselines", "notes", "profiles", "syllabus.yaml"} & set(copied) and "deploy/.env" in copied


def test_an_empty_webhook_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable that compose passes on without a value."""
    from resources.build import build_resources

    monkeypatch.setenv("CURRICULUM_WEBHOOK", "")
    with dg.build_resources({"alerts": build_resources("starter", tmp_path)["alerts"]}) as built:
        assert built.alerts.webhook == ""
