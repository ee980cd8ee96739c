"""What is served is served to this machine alone, unless another host is named."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curriculum import cli


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the command line would start."""
    import curriculum.site.build

    started: list[list[str]] = []

    def keep(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("CURRICULUM_HOME", str(tmp_path))
    monkeypatch.setattr(cli.subprocess, "run", keep)
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "index.html").write_text("the page")
    monkeypatch.setattr(curriculum.site.build, "build_site", lambda *_: tmp_path / "html" / "index.html")
    return started


def test_the_ui_listens_on_loopback_unless_told_otherwise(commands: list[list[str]]) -> None:
    assert CliRunner().invoke(cli.app, ["ui"]).exit_code == 0
    assert CliRunner().invoke(cli.app, ["ui", "--host", "0.0.0.0"]).exit_code == 0
    default, told = (command[command.index("-h") + 1] for command in commands)
    assert default == "127.0.0.1" and told == "0.0.0.0"


def test_the_notes_are_served_on_loopback(commands: list[list[str]]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert CliRunner().invoke(cli.app, ["notes", "--port", str(port)]).exit_code == 0
    (command,) = commands
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # the very command, for real
    try:
        end = time.monotonic() + 20
        while not listening(port) and time.monotonic() < end:
            time.sleep(0.1)
        assert listening(port) == {"0100007F"}  # 127.0.0.1, and neither 0.0.0.0 nor an address of the network
    finally:
        server.kill()
        server.wait()


def listening(port: int) -> set[str]:
    """The addresses (hex, as the kernel has them) on which a port is listened to."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].rsplit(":", 1)[0] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
