"""Secrets stay in the environment: real runs, one of them failing, and no byte they write or say holds a canary."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from curriculum.cli import instance_config
from curriculum.errors import UserError
from curriculum.journal import journal_uri
from tests.http_server import answering, completion

ROOT = Path(__file__).parents[2]
KEY, HOOK, PASSWORD, DATABASE = "sk-canary-KEY-4711", "canary-HOOK-4711", "canary-PASSWORD-4711", "canary-DATABASE-4711"
CANARIES = [KEY, HOOK, PASSWORD, DATABASE]
RUN = """
from __future__ import annotations
import os, sys
from pathlib import Path
from typing import TYPE_CHECKING
import dagster as dg
from assets.lineage import Lab, lineage_asset
from pipelines.progress import progress_logger
from pipelines.sensors import alert_on_failed_run
from resources.build import build_resources
if TYPE_CHECKING:
    from curriculum.results import StudyResult

def ask(lab):
    return lab.generator().generate([[{"role": "user", "content": "what is red"}]], max_new_tokens=5)[0].text

@lineage_asset(group="test", settings="generator")
def answered(lab: Lab) -> StudyResult:
    "Visible in the snapshot of the job."
    import pandas as pd
    from curriculum.results import Metric, StudyResult
    text = ask(lab)
    lab.progress(f"said {text}")
    return StudyResult(
        study="answered", metrics=[Metric(name="asked", value=1.0)], settings=lab.settings.model_dump(mode="json"),
        per_example=pd.DataFrame({"example_id": ["q"], "text": [text]}), remarks=[text],
    )

@lineage_asset(group="test", settings="generator")
def refused(lab: Lab, answered: StudyResult) -> StudyResult:
    "The endpoint refuses the key."
    lab.generator()._settings = lab.settings.model_copy(update={"model": "forbidden"})
    ask(lab)

url, home = sys.argv[1], Path(sys.argv[2])
settings = {"kind": "endpoint", "base_url": url, "model": "tiny", "retries": 0}
resources = build_resources("starter", home, overrides={"generator": settings})
defs = dg.Definitions(
    assets=[answered, refused], jobs=[dg.define_asset_job("job", config={"loggers": {"progress": {}}})], resources=resources,
    loggers={"progress": progress_logger},
)
instance = dg.DagsterInstance.get()
result = defs.resolve_job_def("job").execute_in_process(instance=instance, raise_on_error=False)
context = dg.build_run_status_sensor_context(
    sensor_name="alert_on_failed_run", dagster_event=result.get_run_failure_event(), dagster_instance=instance,
    dagster_run=result.dagster_run, resources={"alerts": resources["alerts"]},
).for_run_failure()
try:
    alert_on_failed_run(context)
except Exception:
    import traceback
    traceback.print_exc()
print("succeeded" if result.success else "failed")
"""


keys: list[str] = []


def reply(path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
    """Answers a chat; refuses the model "forbidden" and repeats its key, and refuses every alert."""
    key = headers.get("Authorization", path)
    keys.append(key)
    status = 400 if HOOK in path else 401 if body["model"] == "forbidden" else 200
    return status, completion("tiny", "visible-answer") if status == 200 else {"error": {"message": f"incorrect key {key}"}}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with answering(reply) as address:
        yield address


def written(folder: Path) -> dict[str, bytes]:
    """Everything below a folder by name: files as they are, and what is compressed in databases and Parquet files unpacked."""
    found: dict[str, bytes] = {}
    for path in (p for p in folder.rglob("*") if p.is_file()):
        raw = found[str(path)] = path.read_bytes()
        if raw.startswith(b"SQLite format 3"):
            with sqlite3.connect(path) as base:
                base.text_factory = bytes
                tables = [name.decode() for (name,) in base.execute("select name from sqlite_master where type = 'table'")]
                cells = [cell for table in tables for row in base.execute(f'select * from "{table}"') for cell in row if isinstance(cell, bytes)]
            found[f"{path}: cells"] = b"\n".join(unpacked(cell) for cell in cells)
        if path.suffix == ".parquet":
            found[f"{path}: table"] = pd.read_parquet(path).to_csv().encode()
    return found


def unpacked(cell: bytes) -> bytes:
    try:
        return zlib.decompress(cell)
    except zlib.error:
        return cell


@pytest.fixture(scope="module")
def ran(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], str]:
    """What was written and what was said by a run whose second asset fails, and by the alert about it."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster").mkdir()
    instance_config(home / "dagster")
    script = home.parent / "run_with_canaries.py"
    script.write_text(RUN)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "DAGSTER_HOME": str(home / "dagster"), "CURRICULUM_HOME": str(home),
        "OPENAI_API_KEY": KEY, "CURRICULUM_WEBHOOK": f"{server}/{HOOK}", "MLFLOW_TRACKING_USERNAME": "someone",
        "MLFLOW_TRACKING_PASSWORD": PASSWORD, "MLFLOW_TRACKING_URI": f"sqlite:///{home}/{DATABASE}/../journal.db",
    }  # fmt: skip
    (home / DATABASE).mkdir()
    done = subprocess.run(
        [sys.executable, str(script), f"{server}/v1", str(home)], cwd=home, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return written(home), done.stdout + done.stderr


def test_the_run_was_a_real_one_and_the_secrets_were_used(ran: tuple[dict[str, bytes], str]) -> None:
    files, said = ran
    assert "\nfailed\n" in said and "refused: FAILED" in said and "said visible-answer" in said and "the webhook did not take" in said
    assert any(KEY in key for key in keys) and any(HOOK in key for key in keys)
    for marker, where in (("visible-answer", ".parquet: table"), ("visible-answer", "result.json"), ("visible-answer", ".db: cells"),
                          ("Visible in the snapshot", "runs.db: cells"), ("incorrect key", ".db: cells")):  # fmt: skip
        assert any(marker.encode() in content for name, content in files.items() if name.endswith(where)), (marker, where)
    assert any("journal.db" in name for name in files)


@pytest.mark.parametrize("canary", CANARIES)
def test_no_canary_is_written_or_said(ran: tuple[dict[str, bytes], str], canary: str) -> None:
    files, said = ran
    assert [name for name, content in files.items() if canary.encode() in content] == []
    assert canary not in said


def test_a_database_that_refuses_is_an_error_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"postgresql+psycopg2://someone:{PASSWORD}@127.0.0.1:{port}/nowhere"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CURRICULUM_HOME": str(tmp_path), "CURRICULUM_POSTGRES_URL": url, "DAGSTER_HOME": str(tmp_path)}
    monkeypatch.setenv("CURRICULUM_POSTGRES_URL", url)
    instance_config(tmp_path)
    code = "import dagster as dg\nwith dg.DagsterInstance.get() as instance: instance.get_runs()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and str(port) in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert not [name for name, content in written(tmp_path).items() if PASSWORD.encode() in content]


def test_a_tracking_servers_password_belongs_in_its_own_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://someone:{PASSWORD}@example.org/mlflow")
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead") as refused:
        journal_uri(tmp_path)
    assert PASSWORD not in str(refused.value)
