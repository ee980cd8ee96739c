"""Starting the ranks of a run and watching them: forked from a process that has imported torch, or by a launcher's command line."""

from __future__ import annotations

import base64
import importlib.util
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from curriculum.errors import UserError
from curriculum.parallel.job import Job
from curriculum.parallel.settings import Launcher, ParallelSettings

ROOT = Path(__file__).resolve().parents[2]
_MODULE = "curriculum.parallel.train"
_POLL_SECONDS = 0.05
# what the ranks would each import for themselves, some of it at their first step; torch._dynamo alone takes seconds
_PRELOAD = [_MODULE, "torch._dynamo", "torch.nn.parallel", "torch.distributed.fsdp", "torch.distributed.optim", "torch.distributed.pipelining"]


class RankDied(UserError):
    """A process of the run ended before its time; the others were ended with it. ``rank`` is None where the launcher did not say."""

    def __init__(self, rank: int | None, ranks: int, how: str, job: Job) -> None:
        self.rank = rank
        who = f"rank {rank} of {ranks}" if rank is not None else f"a rank of {ranks}"
        back = "it goes on from the checkpoint, with any number of ranks" if job.checkpoints else "it starts again, for it keeps no checkpoints"
        super().__init__(f"{who} ({job.strategy}) {how}; no other rank is left running. Run the same again: {back}")


class Running(Protocol):
    """The processes of a run."""

    def alive(self) -> bool:
        """Whether any still runs."""

    def stop(self) -> None:
        """End them, and wait until they are gone."""

    def failure(self) -> tuple[int | None, str] | None:
        """Which rank failed (None: not known) and how; None when all ended well."""


class Forked:
    """Ranks forked by torch.multiprocessing from a server that has imported what they need: a start costs no second import."""

    def __init__(self, job: Job, ranks: int, target: Callable[..., None]) -> None:
        import torch.multiprocessing as processes

        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
        self.context = processes.start_processes(
            target, args=(job.model_dump_json(), ranks), nprocs=ranks, join=False, start_method="forkserver"
        )
        self.error: Exception | None = None
        self.done = False

    def alive(self) -> bool:
        try:
            self.done = self.done or self.context.join(timeout=_POLL_SECONDS)
        except Exception as error:
            self.done, self.error = True, error  # torch has ended the others
        return not self.done

    def stop(self) -> None:
        for process in self.context.processes:
            process.terminate()
        for process in self.context.processes:
            process.join(10)
            if process.is_alive():
                process.kill()

    def failure(self) -> tuple[int | None, str] | None:
        if self.error is None:
            return None
        codes = [process.exitcode or 0 for process in self.context.processes]
        killed = [rank for rank, code in enumerate(codes) if code < 0 and code != -signal.SIGTERM]
        if killed:  # its peers fail as well, perhaps seen first: they lost their connection to it
            return killed[0], ended_by(codes[killed[0]])
        return self.error.error_index, f"failed: {str(self.error).strip().splitlines()[-1]}"


class Commanded:
    """Ranks started by a command, whose output is kept in ``log``."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
            )

    def alive(self) -> bool:
        time.sleep(_POLL_SECONDS)
        return self.process.poll() is None

    def stop(self) -> None:
        for kind, patience in ((signal.SIGTERM, 45), (signal.SIGKILL, 5)):
            try:
                os.killpg(self.process.pid, kind)  # torchrun's ranks are in sessions of their own; asked to end, it ends them in 30 s at most
                self.process.wait(patience)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def failure(self) -> tuple[int | None, str] | None:
        return failure_in(self.log.read_text(encoding="utf-8", errors="replace"), self.process.returncode) if self.process.returncode else None


def failure_in(output: str, code: int) -> tuple[int | None, str]:
    """Which rank failed and how, from the output of a launcher that ended with ``code``: torchrun's summary where there is one."""
    found = [(int(rank), int(exit_code)) for rank, exit_code in re.findall(r"rank\s*: (\d+) .*?exitcode\s*: (-?\d+)", output, re.DOTALL)]
    killed = [(rank, exit_code) for rank, exit_code in found if exit_code < 0 and exit_code != -signal.SIGTERM]
    if killed:
        return killed[0][0], ended_by(killed[0][1])
    said = [line for line in output.splitlines() if re.match(r"(\[rank\d+\]: *)?(error: |\w*(Error|Exception)\b)", line)]
    how = f"failed: {said[0]}" if said else ended_by(code)
    return (found[-1][0] if found else None), how


def ended_by(code: int) -> str:
    """An exit code in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def command(launcher: Launcher, ranks: int, settings: Path) -> list[str]:
    """What starts ``ranks`` processes of the entry point on this machine."""
    entry, python = [_MODULE, str(settings)], [sys.executable, "-m"]
    if launcher == "plain":
        return [*python, *entry]
    if launcher == "torchrun":
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", str(settings.with_suffix(".meeting")), "--rdzv-conf", "store_type=file"]
        return [*python, "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(ranks), "--max-restarts", "0", *meet, "-m", *entry]
    if launcher == "accelerate":
        # --multi_gpu is its name for several processes of one machine; the entry point keeps them on the CPU
        several = ["--multi_gpu", "--num_processes", str(ranks), "--num_machines", "1", "--main_process_port", "0"]
        return [*python, "accelerate.commands.launch", *several, "--mixed_precision", "no", "--dynamo_backend", "no", "--module", *entry]
    world = base64.urlsafe_b64encode(json.dumps({"localhost": list(range(ranks))}).encode()).decode()
    where = ["--node_rank", "0", "--master_addr", "127.0.0.1", "--master_port", "29500"]  # told to the ranks, which meet in a file instead
    return [*python, "deepspeed.launcher.launch", "--world_info", world, *where, "--no_local_rank", "--module", *entry]


def deepspeed_folder(settings: ParallelSettings) -> Path | None:
    """Where deepspeed can be imported from; None: nowhere."""
    folder = ROOT / settings.deepspeed
    if (folder / "deepspeed").is_dir():
        return folder
    return ROOT if importlib.util.find_spec("deepspeed") else None


def environment(settings: ParallelSettings) -> dict[str, str]:
    """Of launched ranks: one thread each, the loopback interface alone, deepspeed's folder after the project's."""
    folder = deepspeed_folder(settings)
    path = [str(ROOT), *([str(folder)] if folder else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}


def fork(job: Job, ranks: int, progress: Callable[[str], None], *, target: Callable[..., None] | None = None) -> list[dict[str, Any]]:
    """Run ``job`` by ``ranks`` forked processes (of ``target``); returns each rank's result. Raises as :func:`launch`."""
    from curriculum.parallel.train import forked_rank

    job = _prepared(job)
    return _watch(Forked(job, ranks, target or forked_rank), job, ranks, progress)


def launch(job: Job, launcher: Launcher, ranks: int, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run ``job`` by ``ranks`` processes that ``launcher`` starts; returns each rank's result.

    Raises:
        RankDied: a rank failed or was killed; what to do is in the message.
    """
    job = _prepared(job)
    settings = Path(job.out) / "settings.json"
    settings.write_text(job.model_dump_json(indent=1), encoding="utf-8")
    started = Commanded(command(launcher, ranks, settings), Path(job.out) / "launcher.log", environment(job.settings))
    return _watch(started, job, ranks, progress)


def _prepared(job: Job) -> Job:
    folder = Path(job.out)
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("rank*.json"), *folder.glob("*.meeting"), folder / "progress.log"]:
        old.unlink(missing_ok=True)
    (folder / "progress.log").touch()
    return job.model_copy(update={"meeting": str(folder / "ranks.meeting")})


def _watch(running: Running, job: Job, ranks: int, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    with (Path(job.out) / "progress.log").open(encoding="utf-8") as log:
        try:
            while running.alive():
                for line in log:
                    progress(line.rstrip())
        except BaseException:
            running.stop()
            raise
        for line in log:
            progress(line.rstrip())
    if failed := running.failure():
        raise RankDied(failed[0], ranks, failed[1], job)
    return [job.result(rank) for rank in range(ranks)]
