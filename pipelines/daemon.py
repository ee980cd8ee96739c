"""A daemon for as long as a command needs one: it is started where none runs on the instance, and stopped with the command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from curriculum.errors import UserError

_SILENT_SECONDS = 45  # a daemon that runs is heard every 30 s
_LISTEN_SECONDS = 5
_PATIENCE_SECONDS = 15  # for a clean end, before it is forced
_STARTS = 3


class Daemon:
    """The daemon of ``instance``: somebody else's where it has one, else one of our own with its log in ``log``."""

    def __init__(self, instance: dg.DagsterInstance, log: Path, say: Callable[[str], None]) -> None:
        self._instance, self._log, self._say = instance, log, say
        self._own: subprocess.Popen[bytes] | None = None
        self._starts, self._listened = 0, 0.0

    def ensure(self) -> None:
        """Start one unless one runs. Called again and again, it replaces one that has died.

        Raises:
            UserError: ours died three times; its log is named.
        """
        if self._own is not None:
            if self._own.poll() is None:
                return
            end_group(self._own)
        elif time.monotonic() - self._listened < _LISTEN_SECONDS or self._heard():
            return
        if self._starts == _STARTS:
            raise UserError(f"the daemon ended {_STARTS} times; its log is {self._log}")
        self._starts += 1
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:  # a session of its own: Ctrl-C is for us, and we end it in order
            command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "pipelines.definitions"]
            self._own = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._say(f"started a daemon (log: {self._log})" if self._starts == 1 else "started the daemon again")

    def _heard(self) -> bool:
        self._listened = time.monotonic()
        beats = [beat.timestamp for beat in self._instance.get_daemon_heartbeats().values()]
        return bool(beats) and time.time() - max(beats) < _SILENT_SECONDS

    def stop(self) -> None:
        """End our own daemon with every process it started, and take its heartbeats away; leave another's alone."""
        if self._own is None:
            return
        if self._own.poll() is None:
            self._own.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._own.wait(_PATIENCE_SECONDS)
        end_group(self._own)
        self._own = None
        self._instance.wipe_daemon_heartbeats()  # else the next command would take it for alive


def end_group(leader: subprocess.Popen[bytes]) -> None:
    """End what is left of the process group that ``leader`` leads: its code servers, and runs that did not stop when told to."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        _signal(leader.pid, sign)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            leader.poll()  # takes its exit status: one that is dead and not waited for counts as there
            if not _signal(leader.pid, 0):
                return
            time.sleep(0.1)


def _signal(group: int, sign: int) -> bool:
    """Send ``sign`` to a process group; False where nothing of it is left."""
    try:
        os.killpg(group, sign)
    except ProcessLookupError:
        return False
    return True
