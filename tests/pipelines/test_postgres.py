"""The instance on Postgres: one variable moves it there, and another process finds its runs. Needs a Postgres server's programs."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from curriculum.cli import instance_config
from curriculum.errors import UserError


def program(name: str) -> str:
    found = [str(p / name) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin")) if (p / name).exists()]
    path = (found or [shutil.which(name) or ""])[-1]
    return path or pytest.skip("no Postgres server on this machine (Debian's package postgresql has one)")


def unprivileged() -> dict[str, object]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    return {"user": "postgres" if "postgres" in names else "nobody", "group": "nogroup", "extra_groups": []}


@pytest.fixture
def server() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to the server's user
    who = unprivileged()
    if who:
        shutil.chown(folder, str(who["user"]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, options = str(folder / "data"), f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run = {"check": True, "capture_output": True, "cwd": folder, **who}
    subprocess.run([program("initdb"), "-D", data, "-U", "curriculum", "--auth=trust"], **run)
    with (folder / "log").open("wb") as log:  # the server keeps what it is given open: no pipe, or the call would wait for it
        subprocess.run([program("pg_ctl"), "-D", data, "-w", "-o", options, "start"], **{**run, "capture_output": False}, stdout=log, stderr=log)
    yield f"postgresql+psycopg2://curriculum@127.0.0.1:{port}/postgres"
    subprocess.run([program("pg_ctl"), "-D", data, "-m", "immediate", "stop"], **run)
    shutil.rmtree(folder, ignore_errors=True)


@dg.asset
def a_table() -> dg.MaterializeResult:
    """Something to find again."""
    return dg.MaterializeResult(metadata={"rows": 7})


def test_one_variable_moves_the_instance_to_postgres(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg2

    monkeypatch.setenv("CURRICULUM_POSTGRES_URL", server)
    assert "postgres_url: {env: CURRICULUM_POSTGRES_URL}" in instance_config(tmp_path).read_text()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert "Postgres" in type(instance.run_storage).__name__
        assert dg.materialize([a_table], instance=instance).success
    with dg.DagsterInstance.from_config(str(tmp_path)) as again:
        event = again.get_latest_materialization_event(dg.AssetKey("a_table"))
        assert event is not None and event.asset_materialization.metadata["rows"].value == 7
    with psycopg2.connect(server.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from runs")
        assert cursor.fetchone() == (1,)
    assert not list(tmp_path.rglob("*.db"))


def test_another_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURRICULUM_POSTGRES_URL", "postgresql://somewhere/db")
    with pytest.raises(UserError, match="postgresql\\+psycopg2://"):
        instance_config(tmp_path)
    assert not (tmp_path / "dagster.yaml").exists()


def test_without_it_the_instance_is_the_projects_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CURRICULUM_POSTGRES_URL", raising=False)
    assert "postgres_url" not in instance_config(tmp_path).read_text()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert "Sqlite" in type(instance.run_storage).__name__ and instance.get_settings("freshness")["enabled"]
