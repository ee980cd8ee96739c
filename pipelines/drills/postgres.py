"""A Postgres server of one's own, started by hand from Debian's programs; and the drill that cuts it off."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from pipelines.drills.box import HOST, Box, Failed, Found, NotRun, free_port, require, wait_for
from pipelines.drills.services import RUN_SECONDS, finished
from pipelines.drills.training import latest, same_as_uninterrupted

MOST_REFUSED = 5


def program(name: str) -> str | None:
    """The newest server's program ``name``, or None where there is no server."""
    found = [str(p / name) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin")) if (p / name).exists()]
    return (found or [shutil.which(name)])[-1]


class PostgresServer:
    """A context manager: an empty database in a temporary folder, on a free port of the loopback interface.

    Raises:
        NotRun: this machine has no Postgres server.
    """

    def __init__(self) -> None:
        initdb, control = program("initdb"), program("pg_ctl")
        if not initdb or not control:
            raise NotRun("needs a Postgres server: Debian's package postgresql")
        self._initdb, self._control = initdb, control
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        self.url = f"postgresql+psycopg2://curriculum@{HOST}:{self.port}/postgres"
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            user = "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
            self._as = {"user": user, "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, user)

    def __enter__(self) -> PostgresServer:
        self._call(self._initdb, "-U", "curriculum", "--auth=trust", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-p {self.port} -c listen_addresses={HOST} -c unix_socket_directories={self.folder}"
        self._call(self._control, "-w", "-o", options, "start")

    def stop(self, *, check: bool = True) -> None:
        """Stop it as a crash would: connections break, nothing is written out."""
        self._call(self._control, "-m", "immediate", "stop", check=check)

    def _call(self, command: str, *arguments: str, check: bool = True) -> None:
        with (self.folder / "log").open("ab") as log:  # the server keeps what it is given open: no pipe, or the call would wait for it
            subprocess.run(
                [command, "-D", str(self.folder / "data"), *arguments], check=check, cwd=self.folder, stdout=log, stderr=log, **self._as
            )


def cut_postgres(seconds: float = 30) -> tuple[str, str]:
    """The instance's database crashes in the middle of a run, and is away for a while."""
    with PostgresServer() as server, Box(CURRICULUM_POSTGRES_URL=server.url) as box:
        box.profile(steps=600, checkpoint_every=20)
        daemon = box.daemon()
        box.webserver()
        done = box.launch("tick_job")
        finished(box, [done], seconds=RUN_SECONDS)
        run = box.launch("trained_job")
        wait_for("the training to write a checkpoint", lambda: box.checkpoint("trained"), seconds=RUN_SECONDS)
        require(box.statuses()[run] == "STARTED", "the run had ended before the database was cut off")
        server.stop()
        time.sleep(seconds)
        server.start()
        ended = _end(box, run)
        back = "daemon and webserver went on by themselves"
        if daemon.poll() is not None:
            back = "the daemon ended; started again"
            box.daemon()
        refused = _Refused()
        shown = refused.until_answered(lambda: box.shown(done))
        require(shown == "SUCCESS", f"the webserver shows the run that had finished before as {shown!r}")
        if ended != "SUCCESS":
            again = refused.until_answered(lambda: box.launch("trained_job"))
            finished(box, [again], seconds=2 * RUN_SECONDS)
        require(latest(box, "tick").asset == "tick", "the finished artifact is gone")
        same_as_uninterrupted(box, "trained")
    how = "the run went on" if ended == "SUCCESS" else "the run was marked failed; launched again, it gave the same weights"
    return f"Postgres away for {seconds:.0f} s in the middle of a run", f"{back}, {refused.count} requests refused at first; {how}"


class _Refused:
    """Requests that the webserver refused: each of its three pools (runs, events, schedules) may hold broken connections, found by use."""

    def __init__(self) -> None:
        self.count = 0

    def until_answered(self, ask: Callable[[], Found]) -> Found:
        """What ``ask`` returns; asked again, as a reader of the page would, until there are no broken connections left."""
        while True:
            try:
                return ask()
            except requests.HTTPError as error:
                self.count += 1
                require(self.count <= MOST_REFUSED, f"the webserver went on refusing requests: {error}")
                time.sleep(1)


def _end(box: Box, run: str) -> str:
    """The status in which the run ends."""

    def ended() -> str:
        status = box.statuses().get(run)
        if status is None:
            raise Failed("the run in progress is gone from the instance")
        return status if status in {"SUCCESS", "FAILURE"} else ""

    return wait_for("the run to end", ended, seconds=2 * RUN_SECONDS, every=0.5)
