"""The training entry point: ``python -m curriculum.parallel.train SETTINGS.json``, started plainly or by any launcher of ranks.

A launcher says by RANK and WORLD_SIZE who this process is; without them it is the only one. Rank 0 reports to ``progress.log`` and
writes the checkpoints; every rank leaves its own measurements.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from curriculum.disk import write_atomically
from curriculum.errors import UserError
from curriculum.parallel.counting import CollectiveCounter
from curriculum.parallel.job import Job, load_job
from curriculum.parallel.saving import load_state, save_state
from curriculum.parallel.strategies import Strategy, make_strategy
from curriculum.transformer.model import Transformer
from curriculum.transformer.training import batch_rows, learning_rate

COUNTED = 2  # the step whose collectives are counted: by then DDP has made its buckets anew


def train(job: Job, rank: int, ranks: int) -> dict[str, Any]:
    """Run the job as ``rank`` of ``ranks``, whose process group is up; returns what is left as the rank's result."""
    blocks = load_file(job.blocks)["blocks"]
    torch.manual_seed(job.seed)
    model = Transformer(job.shape()).to(getattr(torch, job.precision)).train()
    parameters = sum(p.numel() for p in model.parameters())
    strategy = make_strategy(job, model, rank, ranks)
    start, losses = _resume(job, strategy)
    report(job, rank, f"rank {rank} of {ranks} is process {os.getpid()}{f', resumed at step {start}' if start else ''}")
    measured: dict[str, Any] = {"memory": {}, "traffic": {}}
    begun = time.perf_counter()
    for step in range(start, job.settings.steps):
        if job.killed == (rank, step):
            os.kill(os.getpid(), signal.SIGKILL)
        losses.append(_step(job, strategy, blocks, step, measured))
        if rank == 0:
            report(job, rank, f"step {step + 1}/{job.settings.steps} loss {losses[-1]:.4f}")
        if job.checkpoints and (step + 1) % job.settings.checkpoint_every == 0 and step + 1 < job.settings.steps:
            save_state(
                Path(job.checkpoints), strategy.model, strategy.optimizer, step=step + 1, losses=losses, run=job.digest(), rank=rank
            )
    seconds = time.perf_counter() - begun
    return {"losses": losses, "resumed": start, "ranks": ranks, "parameters": parameters, "seconds": seconds, **measured, "extra": strategy.extra}


def _resume(job: Job, strategy: Strategy) -> tuple[int, list[float]]:
    found = load_state(Path(job.checkpoints), strategy.model, strategy.optimizer, run=job.digest()) if job.checkpoints else None
    if job.checkpoints and strategy.ranks > 1:
        dist.barrier()  # nobody writes a checkpoint before everybody has read
    return found or (0, [])


def _step(job: Job, strategy: Strategy, blocks: torch.Tensor, step: int, measured: dict[str, Any]) -> float:
    settings, counted = job.settings, step == COUNTED
    rows = strategy.share(batch_rows(step, len(blocks), settings.step_blocks, job.seed))
    for group in strategy.optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    counter = CollectiveCounter(strategy.rank, strategy.ranks)
    with counter if counted and job.engine == "torch" else nullcontext():
        loss = strategy.backward(blocks[torch.from_numpy(rows)])
        if counted:
            measured["memory"] = strategy.memory()
        strategy.step()
    if counted:
        measured["traffic"] = counter.record()
    return strategy.mean(loss)


def report(job: Job, rank: int, line: str) -> None:
    """Add a line to the run's progress, which whoever started the ranks reads."""
    with (Path(job.out) / "progress.log").open("a", encoding="utf-8") as log:
        log.write(f"{line}\n")


def run_rank(job: Job, rank: int, ranks: int) -> None:
    """One process of the run: join the group, train, leave the result.

    Raises:
        UserError: several ranks and no file to meet in.
    """
    torch.set_num_threads(1)
    if ranks > 1 or job.strategy != "single":
        if not job.meeting:
            raise UserError("several ranks need 'meeting' in the settings file: the path of a file that is not there yet")
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        limit = timedelta(seconds=job.settings.timeout_seconds)
        dist.init_process_group("gloo", init_method=f"file://{job.meeting}", rank=rank, world_size=ranks, timeout=limit)
    try:
        write_atomically(Path(job.out) / f"rank{rank}.json", json.dumps(train(job, rank, ranks)).encode())
        if dist.is_initialized():
            dist.barrier()  # a rank that leaves early would look to the others like one that died
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def forked_rank(rank: int, settings: str, ranks: int) -> None:
    """The same for a process that was forked rather than launched; ``settings`` is the job as JSON."""
    run_rank(Job.model_validate_json(settings), rank, ranks)


def main(arguments: list[str]) -> int:
    """One rank of the job in the file that ``arguments`` name; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m curriculum.parallel.train SETTINGS.json", file=sys.stderr)
        return 2
    try:
        run_rank(load_job(Path(arguments[0])), int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
