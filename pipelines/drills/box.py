"""A box: one temporary installation with its own home, instance and tiny code location, and every process started in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import psutil
import requests
import yaml

from curriculum.cli import PROJECT, instance_config
from curriculum.storage import ArtifactStore

LOCATION, MODULE, PROFILE = "drills", "pipelines.drills.location", "drill"
HOST = "127.0.0.1"
Found = TypeVar("Found")

_LAUNCH = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_STATUS = "query($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } } }"


class Failed(Exception):
    """The fault did harm: what was lost, half-written, or did not come back."""


class NotRun(Exception):
    """This machine lacks what the drill needs; the message says what."""


def require(holds: bool, otherwise: str) -> None:
    """Raises Failed with ``otherwise`` unless ``holds``."""
    if not holds:
        raise Failed(otherwise)


def wait_for(what: str, look: Callable[[], Found], *, seconds: float, every: float = 0.1) -> Found:
    """What ``look`` returns once it is true; Failed after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(every)
    raise Failed(f"waited {seconds:.0f} s in vain for {what}")


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def materialise(asset: str) -> tuple[str, ...]:
    """The command that materialises one asset of the box's code location."""
    return ("dagster", "asset", "materialize", "-m", MODULE, "--select", asset)


class Box:
    """A context manager: leaving it, also by Ctrl-C, ends every process of the box and removes its folder."""

    def __init__(self, folder: Path | None = None, **environment: str) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="drill-"))
        self.home, self.dagster_home = self.folder / "home", self.folder / "dagster"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CURRICULUM_", "DAGSTER_"))},
            "CURRICULUM_HOME": str(self.home), "DAGSTER_HOME": str(self.dagster_home), "PYTHONPATH": str(PROJECT),
            "CURRICULUM_PROFILE": str(self.folder / f"{PROFILE}.yaml"), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **environment,
        }  # fmt: skip
        self._settings = contextlib.ExitStack()
        self.port = free_port()

    def __enter__(self) -> Box:
        for folder in (self.home, self.dagster_home):
            folder.mkdir(parents=True, exist_ok=True)
        self._settings.enter_context(_variables({"CURRICULUM_POSTGRES_URL": self.environment.get("CURRICULUM_POSTGRES_URL")}))
        instance_config(self.dagster_home)
        where = {"module_name": MODULE, "working_directory": str(PROJECT), "location_name": LOCATION}
        (self.folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"python_module": where}]}))
        self.profile()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(self.processes())
        self._settings.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def profile(self, **transformer: Any) -> None:
        """Write the box's profile; a run reads it when it starts."""
        data = {"compute": {"threads": 1}, "transformer": {"layers": 2, "width": 64, "heads": 2, "kv_heads": 2, "hidden": 96, **transformer}}
        (self.folder / f"{PROFILE}.yaml").write_text(yaml.safe_dump(data))

    def store(self) -> ArtifactStore:
        """The artifact store of the box, as this process sees it."""
        return ArtifactStore(str(self.home / "artifacts" / PROFILE))

    def checkpoint(self, asset: str) -> int:
        """The step of the checkpoint that ``asset``'s training has written; 0 before the first one."""
        from safetensors import SafetensorError, safe_open

        for path in self.store().root.glob(f"work/{asset}/*/checkpoint.safetensors"):
            with contextlib.suppress(SafetensorError, OSError), safe_open(path, framework="numpy") as file:
                return int(yaml.safe_load(file.metadata()["note"])["step"])
        return 0

    # processes

    def start(self, *command: str, log: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program of this Python in its own session; what it prints goes to the file ``log``."""
        with (self.folder / f"{log}.log").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", *command], cwd=self.folder, env={**self.environment, **environment}, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def printed(self, log: str) -> str:
        """What the program printed so far."""
        path = self.folder / f"{log}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, *command: str, seconds: float = 400, prefix: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
        """Run a command in the box to its end; returns its exit code and everything it printed."""
        done = subprocess.run(
            [*prefix, *command], cwd=self.folder, env={**self.environment, **environment}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False, start_new_session=True,
        )  # fmt: skip
        return done.returncode, done.stdout

    def materialise(self, asset: str, *, fresh: bool = False, **more: Any) -> tuple[int, str]:
        """The command the README names, for one asset."""
        return self.run(*materialise(asset), CURRICULUM_FRESH="1" if fresh else "0", **more)

    def processes(self) -> list[psutil.Process]:
        """Every live process of this box, whoever started it: its environment names the box's home."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("CURRICULUM_HOME") == str(self.home)
                if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    @staticmethod
    def kill(processes: list[psutil.Process]) -> None:
        """SIGKILL, and wait until they are gone."""
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=10)

    # services

    def daemon(self, log: str = "daemon") -> subprocess.Popen[bytes]:
        """Start the daemon on the box's workspace."""
        return self.start("dagster._daemon", "run", "-w", "workspace.yaml", log=log)

    def webserver(self, log: str = "webserver") -> subprocess.Popen[bytes]:
        """Start the webserver on the loopback interface, and wait until it answers."""
        server = self.start("dagster_webserver", "-h", HOST, "-p", str(self.port), "-w", "workspace.yaml", log=log)

        def answers() -> bool:
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"http://{HOST}:{self.port}/server_info", timeout=2).ok
            return False

        wait_for("the webserver to answer", answers, seconds=240)
        return server

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """One GraphQL request, as the page makes it."""
        answer = requests.post(f"http://{HOST}:{self.port}/graphql", json={"query": query, "variables": variables}, timeout=30)
        answer.raise_for_status()
        return answer.json()["data"]

    def launch(self, job: str, number: int = 0) -> str:
        """Queue one run by the webserver, tagged with ``number``; returns its id."""
        selector = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__", "jobName": job}
        tags = [{"key": "drill/number", "value": str(number)}]
        params = {"selector": selector, "mode": "default", "runConfigData": {}, "executionMetadata": {"tags": tags}}
        launched = self.ask(_LAUNCH, params=params)["launchPipelineExecution"]
        require(launched["__typename"] == "LaunchRunSuccess", f"the webserver did not take a run of {job}: {launched}")
        return launched["run"]["runId"]

    def shown(self, run_id: str) -> str:
        """The run's status as the webserver shows it."""
        return self.ask(_STATUS, id=run_id)["runOrError"].get("status", "")

    @contextlib.contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The box's instance, read from here."""
        with dg.DagsterInstance.from_config(str(self.dagster_home)) as instance:
            yield instance

    def statuses(self) -> dict[str, str]:
        """The status of every run, by its id."""
        with self.instance() as instance:
            return {run.run_id: run.status.value for run in instance.get_runs()}

    def worker(self, run_id: str) -> psutil.Process | None:
        """The live process of a run."""
        with self.instance() as instance:
            launcher: Any = instance.run_launcher
            pid = launcher.process_id(run_id)
        return psutil.Process(pid) if pid and psutil.pid_exists(pid) else None


@contextlib.contextmanager
def _variables(values: dict[str, str | None]) -> Iterator[None]:
    """Environment variables of this process for the time of a block; None unsets one."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
