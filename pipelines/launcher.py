"""The run launcher of one machine: runs start in the code server's processes, and a run whose process is gone is seen to be gone.

Dagster's default launcher leaves that to the code server, which dies with the machine: after a power cut its run stays STARTED
for ever, and with one run at a time nothing behind it in the queue would ever start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEventType  # no public name for any of these; the pinned version has them here
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import ConfigurableClassData

_HERE = {"localhost", "127.0.0.1", "::1"}


class LocalRunLauncher(DefaultRunLauncher):
    """The default launcher with a health check, which run monitoring asks every ``poll_interval_seconds``."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> LocalRunLauncher:
        return cls(inst_data=inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """FAILED when the run's process on this machine is gone; RUNNING when it lives, or where it cannot be known from here."""
        where = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
        pid = self.process_id(run.run_id)
        if pid is None or not ("socket" in where or where.get("host") in _HERE):
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its process is not on this machine")
        if _is_run_process(pid):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process {pid} is gone; launch it again: it goes on from its checkpoints")

    def process_id(self, run_id: str) -> int | None:
        """The process id that the run's process wrote down when it started."""
        for entry in self._instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
            data = entry.dagster_event.engine_event_data if entry.dagster_event else None
            pid = data.metadata.get("pid") if data else None
            if pid is not None:
                return int(str(pid.value))
        return None


def _is_run_process(pid: int) -> bool:
    """Whether ``pid`` is a run's process: alive, and started by multiprocessing (another program may have been given the number)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any("multiprocessing" in part for part in process.cmdline())
    except psutil.Error:
        return False
