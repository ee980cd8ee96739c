"""The instance on Postgres: one variable moves it there, and another process finds its runs. Needs a Postgres server's programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from curriculum.cli import instance_config
from curriculum.errors import UserError
from pipelines.drills.box import NotRun
from pipelines.drills.postgres import PostgresServer


@pytest.fixture
def server() -> Iterator[str]:
    try:
        running = PostgresServer()
    except NotRun as lacks:
        pytest.skip(str(lacks))
    with running:
        yield running.url


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
