"""What forked processes run in place of the trainer's own: ranks that do not do their part, and one that compares with torch's plan."""

from __future__ import annotations

import copy
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from curriculum.parallel import strategies, tensor, train
from curriculum.parallel.job import Job
from curriculum.transformer.config import ModelConfig
from curriculum.transformer.model import Transformer


def skips_the_all_reduce(rank: int, settings: str, ranks: int) -> None:
    """Every rank keeps its own gradients, the last micro-batch's as well."""

    def quiet(self: Any, *, last: bool) -> AbstractContextManager[Any]:
        return self.model.no_sync()

    strategies.DataParallel.quiet = quiet
    train.forked_rank(rank, settings, ranks)


def sums_no_partial_results(rank: int, settings: str, ranks: int) -> None:
    """A row-parallel matrix's output stays each rank's own part."""
    tensor._Reduce.forward = staticmethod(lambda ctx, x: x.clone())
    train.forked_rank(rank, settings, ranks)


def forgets_the_moments(rank: int, settings: str, ranks: int) -> None:
    """Resuming restores the weights and leaves the optimizer as new."""
    from curriculum.parallel import saving

    saving._moments = lambda tensors: {}
    saving.set_optimizer_state_dict = lambda *given, **more: None
    train.forked_rank(rank, settings, ranks)


def compares_with_torch(rank: int, settings: str, ranks: int) -> None:
    """One feed-forward block cut by our code and by torch's ColwiseParallel and RowwiseParallel: outputs and gradients of what is held."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    job = Job.model_validate_json(settings)
    dist.init_process_group("gloo", init_method=f"file://{job.meeting}", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    ours = Transformer(ModelConfig(32, 1, 16, 4, 2, 24, activation="gelu", tied=False))
    theirs, x = copy.deepcopy(ours).decoder.blocks[0].feed_forward, torch.randn(3, 16)
    tensor.shard_model(ours, rank, ranks)
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    found = {}
    for name, block in (("ours", ours.decoder.blocks[0].feed_forward), ("theirs", parallelize_module(theirs, init_device_mesh("cpu", (ranks,)), plan))):
        given = x.clone().requires_grad_()
        made = block(given)
        made.square().sum().backward()
        grads = [given.grad, *(p.grad.to_local() if hasattr(p.grad, "to_local") else p.grad for p in block.parameters())]
        found[name] = [value.flatten().tolist() for value in (made.detach(), *grads)]
    (Path(job.out) / f"rank{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
