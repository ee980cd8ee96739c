"""Data-parallel training by two ranks over gloo, started by torchrun: rank 0 writes the checkpoints, every rank resumes from them.

The ranks meet in a file and talk over the loopback interface alone. A rank that dies takes the others with it (torchrun ends
them), and the training fails with the command's own way back: run it again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from curriculum.errors import UserError
from curriculum.transformer.settings import TransformerSettings

if TYPE_CHECKING:
    from torch import Tensor

RANKS = 2


def run_ranks(settings: TransformerSettings, *, seed: int, out: Path, checkpoints: Path, progress: Callable[[str], None]) -> None:
    """Train into ``out`` (model.safetensors, config.json, losses.json) by RANKS processes.

    Raises:
        UserError: a rank died; no other is left running, and the checkpoint is where it was.
    """
    meeting = Path(tempfile.mkdtemp(prefix="ranks-"))
    arguments = ["--settings", settings.model_dump_json(), "--seed", str(seed), "--out", str(out), "--checkpoints", str(checkpoints)]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(RANKS), "--max-restarts", "0",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", str(meeting / "rendezvous"), "--rdzv-conf", "store_type=file",
        "-m", "pipelines.drills.ranks", "--meeting", str(meeting / "ranks"), *arguments,
    ]  # fmt: skip
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()) as ranks:
            assert ranks.stdout is not None
            try:
                for line in ranks.stdout:
                    progress(line.rstrip())
            except BaseException:
                ranks.terminate()  # torchrun passes it on to the ranks
                raise
    finally:
        shutil.rmtree(meeting, ignore_errors=True)
    if ranks.returncode:
        raise UserError(f"a training rank died (torchrun ended with {ranks.returncode}); run the same command again: it goes on from the checkpoint")


def _environment() -> dict[str, str]:
    return {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def train(settings: TransformerSettings, seed: int, out: Path, checkpoints: Path) -> None:
    """What each rank runs. The global batch is the settings' batch; rank r takes its r-th share."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from curriculum.checkpoint import load_checkpoint, save_checkpoint
    from curriculum.storage import digest_of
    from curriculum.transformer.model import Transformer, save_model
    from curriculum.transformer.training import batch_rows, learning_rate, make_optimizer, model_config

    class Loss(torch.nn.Module):
        """DDP hooks a module's forward, so the loss is one."""

        def __init__(self, model: Transformer) -> None:
            super().__init__()
            self.model = model

        def forward(self, blocks_BT: Tensor) -> Tensor:
            hidden, _ = self.model.decode(blocks_BT[:, :-1])
            return self.model.loss(hidden, blocks_BT[:, 1:])

    rank = dist.get_rank()
    blocks = torch.randint(256, (64, 33), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    model = Transformer(model_config(settings, 256)).train()
    optimizer, run = make_optimizer(model, settings), digest_of([settings.model_dump(mode="json"), seed, "ranks", RANKS])
    start, losses = load_checkpoint(checkpoints, model, optimizer, run=run) or (0, [])
    dist.barrier()  # nobody writes a checkpoint before everybody has read
    if rank == 0 and start:
        print(f"resumed at step {start}/{settings.steps}", flush=True)
    parallel = DistributedDataParallel(Loss(model))
    for step in range(start, settings.steps):
        rows = batch_rows(step, len(blocks), settings.batch_size * RANKS, seed)[rank::RANKS]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        optimizer.zero_grad(set_to_none=True)
        loss = parallel(blocks[torch.from_numpy(rows)])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        mean = loss.detach() / RANKS
        dist.all_reduce(mean)
        losses.append(float(mean))
        if rank == 0 and (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
            save_checkpoint(checkpoints, model, optimizer, step=step + 1, losses=losses, run=run)
    if rank == 0:
        save_model(model, out)
        (out / "losses.json").write_text(json.dumps(losses))


def main() -> None:
    """One rank; torchrun says which."""
    import torch
    import torch.distributed as dist

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("meeting", "settings", "out", "checkpoints"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{given.meeting}", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60))
    train(TransformerSettings.model_validate_json(given.settings), given.seed, Path(given.out), Path(given.checkpoints))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
