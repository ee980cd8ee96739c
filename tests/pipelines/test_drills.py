"""The drills can fail: each planted loss is found by the drill's own check, and gets the verdict FAILED."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from curriculum.storage import ArtifactStore, Manifest
from pipelines.drills import harness, postgres, services, storing, writer
from pipelines.drills.box import Box, Failed, NotRun, wait_for
from pipelines.drills.harness import Outcome, Verdict, run_all, run_drill
from pipelines.launcher import LocalRunLauncher


@pytest.fixture
def box() -> Iterator[Box]:
    with Box() as opened:
        yield opened


def publish(box: Box, version: str) -> Path:
    """One version of 'tick', as its asset writes it; returns its folder."""
    store = box.store()
    with store.staging("tick") as staged:
        (staged / "tick.json").write_text(json.dumps({"seed": 0, "of": version}))
        store.publish(staged, Manifest(asset="tick", version=version, key=version, kind="directory", profile="drill"))
    return store.root / "tick" / version


def test_a_lost_version_fails_the_drill(box: Box) -> None:
    publish(box, "v1")

    def drill() -> tuple[str, str]:
        services.whole(box, "tick", 2)
        return "two versions", "both there"

    outcome = run_drill("planted", drill)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.found == "1 versions of 'tick' instead of 2"


def test_a_damaged_version_fails_the_drill(box: Box) -> None:
    (publish(box, "v1") / "tick.json").write_text("{}")
    outcome = run_drill("planted", lambda: (services.whole(box, "tick", 1), ("", ""))[1])
    assert outcome.verdict is Verdict.FAILED
    assert "tick.json differs from its checksum" in outcome.found


@pytest.mark.parametrize("damage", storing.DAMAGES)
def test_every_damage_is_refused_with_a_command(box: Box, damage: str) -> None:
    storing.DAMAGES[damage](publish(box, "v1"))
    assert "--select tick" in storing._refusal(box, damage)


def test_a_store_that_verifies_nothing_fails_the_drill(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    storing.DAMAGES["a bit flipped"](publish(box, "v1"))
    monkeypatch.setattr(ArtifactStore, "_verify", staticmethod(lambda folder, manifest: None))
    outcome = run_drill("planted", lambda: (storing._refusal(box, "a bit flipped"), "")[:2])
    assert outcome.verdict is Verdict.FAILED
    assert outcome.found == "a bit flipped: the damaged artifact was read"


def test_a_lost_run_fails_the_drill(box: Box) -> None:
    outcome = run_drill("planted", lambda: (services.finished(box, ["a-run-nobody-has"], seconds=5), ("", ""))[1])
    assert outcome.verdict is Verdict.FAILED
    assert "runs were lost or failed: {'a-run-nobody-has': None}" in outcome.found


def test_a_version_of_two_writers_is_not_whole(box: Box) -> None:
    store = box.store()
    with store.staging("shared") as staged:
        (staged / "first.txt").write_text("written by anna\n")
        (staged / "second.txt").write_text("written by boris\n")
        mixed = store.publish(staged, Manifest(asset="shared", version="v1", key="v1", kind="directory"))
    assert not writer.whole(store, mixed)
    assert writer.whole(store, writer.publish(store, "shared", "v2", "v2", "written by anna"))


def test_writers_that_break_each_other_fail_the_drill(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_drill("writers", lambda: storing.two_writers(0.5)).verdict is Verdict.HELD
    monkeypatch.setattr(writer, "whole", lambda store, manifest: manifest.version != "shared-0")
    outcome = run_drill("writers", lambda: storing.two_writers(0.5))
    assert (outcome.verdict, outcome.found) == (Verdict.FAILED, "a version mixes two writers")


def test_what_nobody_foresaw_is_a_failure_and_what_a_machine_lacks_is_not_a_pass(tmp_path: Path) -> None:
    def breaks() -> tuple[str, str]:
        raise OSError("the network is down")

    def lacks() -> tuple[str, str]:
        raise NotRun("needs a database")

    def holds() -> tuple[str, str]:
        return "a fault", "came back"

    record = tmp_path / "drills.json"
    outcomes = run_all({"holds": holds, "breaks": breaks, "lacks": lacks}, record)
    assert [(o.verdict, o.found) for o in outcomes] == [
        (Verdict.HELD, "came back"), (Verdict.FAILED, "OSError: the network is down"), (Verdict.NOT_RUN, "needs a database"),
    ]  # fmt: skip
    assert [harness.exit_code(part) for part in (outcomes[:1], outcomes, outcomes[::2])] == [0, 1, 2]
    kept = json.loads(record.read_text())["drills"]
    assert [Outcome(**{**row, "verdict": Verdict(row["verdict"])}) for row in kept] == outcomes


def test_every_fault_has_a_drill_and_one_that_lacks_its_program_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {"daemon", "webserver", "power", "step", "rank", "postgres", "disk", "corrupt", "clock", "writers", "queue"}
    assert set(harness.DRILLS) == faults
    monkeypatch.setattr(postgres, "program", lambda name: None)
    monkeypatch.setattr(storing.shutil, "which", lambda name: None)
    outcomes = [run_drill(name, harness.DRILLS[name]) for name in ("postgres", "clock")]
    assert [(o.verdict, o.found) for o in outcomes] == [
        (Verdict.NOT_RUN, "needs a Postgres server: Debian's package postgresql"), (Verdict.NOT_RUN, "needs Debian's package faketime"),
    ]  # fmt: skip
    assert harness.exit_code(outcomes) == 2


def test_the_page_holds_every_verdict_in_one_line() -> None:
    lost = Outcome("disk", Verdict.FAILED, "a disk | full", "the last version\nis gone", 3.4)
    lines = harness.page([lost, Outcome("clock", Verdict.HELD, "clocks jump", "order kept", 1.0)]).splitlines()
    assert "1 of 2 held, in 4 s." in lines
    assert lines[-2:] == ["| disk | FAILED | 3 | a disk \\| full | the last version is gone |", "| clock | held | 1 | clocks jump | order kept |"]


def test_the_table_shows_each_verdict_and_what_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    harness.print_table([Outcome("step", Verdict.FAILED, "", "gone: [v1]", 3.0), Outcome("queue", Verdict.HELD, "50 runs", "all once", 9.0)])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("step", "FAILED", "gone: [v1]", "queue", "held", "50 runs"))


def test_an_unknown_drill_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "curriculum.cli", "drills", "flood"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"error: no drill is called flood; there are {', '.join(harness.DRILLS)}"]


def test_a_box_leaves_no_process_and_no_folder_behind() -> None:
    with pytest.raises(Failed, match="planted"), Box() as box:
        process = box.start("http.server", str(box.port), log="server")
        wait_for("the process to be found", lambda: [p.pid for p in box.processes()] == [process.pid], seconds=20)
        raise Failed("planted")
    process.wait(10)
    assert not psutil.pid_exists(process.pid)
    assert not box.folder.exists()


@pytest.fixture
def instance(box: Box) -> Iterator[dg.DagsterInstance]:
    with box.instance() as opened:
        yield opened


def test_a_run_whose_process_is_gone_is_seen(instance: dg.DagsterInstance) -> None:
    @dg.job
    def empty() -> None:
        """No steps."""

    launcher = instance.run_launcher
    assert isinstance(launcher, LocalRunLauncher)

    def health(pid: int, host: str) -> WorkerStatus:
        run = instance.create_run_for_job(empty, tags={GRPC_INFO_TAG: json.dumps({"host": host, "port": 1})})
        data = EngineEventData(metadata={"pid": dg.MetadataValue.text(str(pid))})
        instance.report_engine_event("started", run, data)
        return launcher.check_run_worker_health(run).status

    worker = subprocess.Popen([sys.executable, "-c", "import multiprocessing; import time; time.sleep(60)"])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert health(worker.pid, "localhost") is WorkerStatus.RUNNING
        assert health(other.pid, "localhost") is WorkerStatus.FAILED  # its number was given to another program
        worker.kill()
        worker.wait()
        assert health(worker.pid, "localhost") is WorkerStatus.FAILED
        assert health(worker.pid, "elsewhere") is WorkerStatus.RUNNING  # it cannot be known from here
    finally:
        for process in (worker, other):
            process.kill()
            process.wait()
