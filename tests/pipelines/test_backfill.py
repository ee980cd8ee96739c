"""``curriculum backfill`` with a real daemon, real runs and real rows: partial failure, the rest alone, Ctrl-C, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._cli import cli
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_graphql.test.utils import execute_dagster_graphql

from curriculum.backfill import Outcome, exit_code, outcome_line
from curriculum.cli import instance_config
from curriculum.evaluation.gate import judge
from curriculum.storage import ArtifactStore
from curriculum.syllabus import Bar
from pipelines import backfill
from tests.pipelines.test_partitions import corpus

ROOT = Path(__file__).parents[2]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "CURRICULUM_HOME": str(home / "home"), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def profile(home: Path) -> str:
    """The starter's defaults, two corpora of one's own, and a bar on their table."""
    lines = [f"rows: {{corpora_folder: 'path:{home / 'own'}'}}", "retrieval: {max_queries: 4}"]
    (home / "mine.yaml").write_text("\n".join(lines) + "\n")
    return str(home / "mine.yaml")


def command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "curriculum.cli", "backfill", "own_corpus_row", *words, "--profile", profile(home)]


def left_behind(home: Path) -> list[str]:
    """Command lines of live processes that belong to this home."""
    mark, found = f"CURRICULUM_HOME={home / 'home'}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # ended, or not ours
    return found


@pytest.mark.e2e  # two minutes: the real models are loaded by six processes, one after the other
def test_a_partition_that_fails_leaves_the_others_and_resume_makes_only_the_rest(tmp_path: Path) -> None:
    corpus(tmp_path / "own" / "few", 2), corpus(tmp_path / "own" / "marsh")
    done = subprocess.run(command(tmp_path, "--all"), cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "started a daemon" in done.stdout and "FAILED: the corpus 'few' gives 2 known items and needs 4" in done.stdout
    assert "1 of 2 partitions are made and kept; the rest: curriculum backfill own_corpus_row --resume" in done.stdout
    assert "not run" in done.stdout and not left_behind(tmp_path)
    store = ArtifactStore(str(tmp_path / "home" / "artifacts" / "mine"))
    (kept,) = store.versions("own_corpus_row/marsh")
    corpus(tmp_path / "own" / "few")
    again = subprocess.run(command(tmp_path, "--resume"), cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "own_corpus_row: 1 of 2 partitions: few" in again.stdout and "not run" not in again.stdout
    assert store.versions("own_corpus_row/marsh") == [kept] and store.manifest("own_corpus_row/few") and not left_behind(tmp_path)


def test_ctrl_c_ends_the_queued_runs_and_every_process_and_names_the_rest(tmp_path: Path) -> None:
    corpus(tmp_path / "own" / "marsh")
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell leaves it to what it starts in the background
    try:
        running = subprocess.Popen(command(tmp_path, "--all"), cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE, text=True, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert running.stdout is not None
    for line in running.stdout:
        if "started a daemon" in line:
            break
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    rest = running.stdout.read()
    assert running.wait(timeout=120) == 2 and "interrupted" in rest and "0 of 1 partitions are made" in rest
    assert not left_behind(tmp_path)
    assert ArtifactStore(str(tmp_path / "home" / "artifacts" / "mine")).manifest("own_corpus_row/marsh") is None
    staging = tmp_path / "home" / "artifacts" / "mine" / ".staging"
    assert not staging.exists() or not list(staging.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("qa_reader", "--all"), "'qa_reader' has no partitions; those with some are fusion_row"),
        (("fusion_row",), "in one way: --partitions a,b, --all, --missing or --resume"),
        (("fusion_row", "--all", "--missing"), "in one way"),
        (("fusion_row", "--partitions", "rrf,nope"), 'no partition "nope"; there are bm25, dense, rrf'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    line = [sys.executable, "-m", "curriculum.cli", "backfill", *words]
    done = subprocess.run(line, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fusion_row", "--resume"), "there is no backfill of 'fusion_row' to resume"),
        (("own_corpus_row", "--all"), "has no partitions under the profile 'starter'"),
    ],
)
def test_a_mistake_that_the_orchestrators_part_finds_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    """What the command becomes, in this process."""
    for name, value in {"CURRICULUM_HOME": str(tmp_path), "DAGSTER_HOME": str(instance_config(tmp_path).parent), "CURRICULUM_PROFILE": "starter"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["backfill", *words, "--profile", "starter"])
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as ended:
            backfill.main()
    finally:
        for sign, handler in handlers.items():
            signal.signal(sign, handler)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.startswith("error: ") and said in told and "Traceback" not in told


def test_the_exit_code_tells_well_from_a_bar_that_fails_from_a_partition_that_broke() -> None:
    fine, broke = Outcome("a", True, 1.0), Outcome("b", False, 1.0, error="no such file")
    wrong, warns = (judge(Bar(asset="t", metric="m", min=1, blocking=blocking), 0.0) for blocking in (True, False))
    assert exit_code([], [], table_made=True) == 0 and exit_code([], [warns], table_made=True) == 0
    assert exit_code([], [wrong], table_made=False) == 1
    assert exit_code([broke], [wrong], table_made=True) == 2 and exit_code([], [], table_made=False) == 2
    assert outcome_line(broke, 2, 3).split() == ["2/3", "b", "1.0", "s", "FAILED:", "no", "such", "file"] and "FAILED" not in outcome_line(fine, 1, 3)


BACKFILLS = """{ partitionBackfillsOrError { ... on PartitionBackfills { results {
  partitionSet { name } partitionStatuses { results { partitionName runStatus } } } } } }"""


def test_the_page_of_a_backfill_shows_the_run_of_each_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(instance_config(tmp_path).parent))
    module = "pipelines.definitions"
    words = f"job backfill -m {module} -j fusion_rows --partitions bm25,rrf --noprompt".split()
    place = InProcessTestWorkspaceLoadTarget(InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name=module), location_name=module))
    with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, place) as workspace:
        assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
        page = execute_dagster_graphql(workspace.create_request_context(), BACKFILLS).data
    (shown,) = page["partitionBackfillsOrError"]["results"]
    assert shown["partitionSet"] == {"name": "fusion_rows_partition_set"}
    assert shown["partitionStatuses"]["results"] == [{"partitionName": name, "runStatus": "QUEUED"} for name in ("bm25", "rrf")]
