"""How one optimizer step is shared between ranks: every strategy reads the same global batch and must reach the same loss.

Shape suffixes: B blocks, T tokens of a block and the one after it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from curriculum.parallel.job import Job
from curriculum.transformer.model import Transformer
from curriculum.transformer.training import make_optimizer


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def stored_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes this rank holds of ``tensors``: of a sharded one its shard."""
    local = (t.to_local() if hasattr(t, "to_local") else t for t in tensors if t is not None)
    return sum(t.numel() * t.element_size() for t in local)


class Strategy(ABC):
    """A model of which this rank trains its part. ``held``: bytes of parameters between the last forward and backward pass."""

    def __init__(self, job: Job, model: Transformer, rank: int, ranks: int) -> None:
        self.job, self.rank, self.ranks, self.held = job, rank, ranks, 0
        self.extra: dict[str, Any] = {}
        self.model: nn.Module
        self.optimizer: torch.optim.Optimizer
        self.prepare(model)

    @abstractmethod
    def prepare(self, model: Transformer) -> None:
        """Wrap or cut ``model``, and make the optimizer."""

    def share(self, rows: Any) -> Any:
        """Which of the step's rows this rank reads: every one, unless the data is what is split."""
        return rows

    @abstractmethod
    def backward(self, blocks_BT: Tensor) -> Tensor:
        """Gradients of this rank's share of the step; returns its mean loss."""

    @abstractmethod
    def step(self) -> None:
        """Clip by the norm of the whole gradient, step, and forget the gradients."""

    def mean(self, loss: Tensor) -> float:
        """The loss of the global batch from every rank's."""
        return float(loss)

    def memory(self) -> dict[str, int]:
        """Bytes this rank holds of parameters, gradients and optimizer state; ask between :meth:`backward` and :meth:`step`."""
        moments = (value for state in self.states() for value in state.values() if isinstance(value, Tensor) and value.dim())
        gradients = stored_bytes(p.grad for p in self.model.parameters())
        return {"parameters": self.held, "gradients": gradients, "optimizer": stored_bytes(moments)}

    def states(self) -> Iterable[dict[str, Any]]:
        """The optimizer's state of every parameter it has here."""
        return self.optimizer.state.values()


class DataParallel(Strategy):
    """Whole layers on every rank and a share of the batch each: one rank, DDP, or ZeRO by what is sharded."""

    def prepare(self, model: Transformer) -> None:
        wrap = {"single": self._single, "ddp": self._ddp, "zero1": self._zero1, "zero2": self._sharded, "zero3": self._sharded}
        wrap[self.job.strategy](model)

    def _single(self, model: Transformer) -> None:
        if self.ranks != 1:
            raise ValueError(f"strategy 'single' is of one rank, not {self.ranks}")
        self.model, self.optimizer = model, make_optimizer(model, self.job.settings)

    def _ddp(self, model: Transformer) -> None:
        from torch.nn.parallel import DistributedDataParallel

        self.optimizer = make_optimizer(model, self.job.settings)
        self.model = DistributedDataParallel(model, forward_sync_buffers=False)  # the rotary tables never change

    def _zero1(self, model: Transformer) -> None:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        self._ddp(model)
        groups = [{key: group[key] for key in ("params", "weight_decay")} for group in self.optimizer.param_groups]
        more = {key: self.optimizer.defaults[key] for key in ("lr", "betas", "fused")}
        self.optimizer = ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.AdamW, **more)

    def _sharded(self, model: Transformer) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")  # a block's keys; nothing changes them
        mesh, reshard = init_device_mesh("cpu", (self.ranks,)), self.job.strategy == "zero3"
        for block in model.decoder.blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=reshard)
        self.model = fully_shard(model, mesh=mesh, reshard_after_forward=reshard)
        self.optimizer = make_optimizer(model, self.job.settings)

    def share(self, rows: Any) -> Any:
        return rows[self.rank :: self.ranks]

    def backward(self, blocks_BT: Tensor) -> Tensor:
        total, parts = torch.zeros(()), blocks_BT.chunk(self.job.settings.accumulate)
        for number, part in enumerate(parts, 1):
            with self.quiet(last=number == len(parts)):
                loss = next_token_loss(self.model(part[:, :-1]), part[:, 1:])
                self.held = stored_bytes(self.model.parameters())
                self.differentiate(loss / len(parts))
            total = total + loss.detach() / len(parts)
        return total

    def quiet(self, *, last: bool) -> AbstractContextManager[Any]:
        """Where gradients are whole, they are reduced once a step; a rank that keeps a shard of them must reduce every micro-batch."""
        return nullcontext() if last or not hasattr(self.model, "no_sync") else self.model.no_sync()

    def differentiate(self, loss: Tensor) -> None:
        """The backward pass."""
        loss.backward()

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.job.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def mean(self, loss: Tensor) -> float:
        return mean_over_ranks(loss, self.ranks)

    def states(self) -> Iterable[dict[str, Any]]:
        return getattr(self.optimizer, "optim", self.optimizer).state.values()  # ZeroRedundancyOptimizer keeps the rank's own in .optim


def mean_over_ranks(loss: Tensor, ranks: int) -> float:
    """The mean of every rank's loss."""
    total = loss.detach().clone()
    if ranks > 1:
        dist.all_reduce(total)
    return float(total) / ranks


class TensorParallel(Strategy):
    """Every matrix cut, the whole batch on every rank (:mod:`curriculum.parallel.tensor`)."""

    def prepare(self, model: Transformer) -> None:
        from curriculum.parallel.tensor import gather_logits, local_logits, shard_model

        ids = torch.arange(2 * self.job.settings.length).view(2, -1) % self.job.vocab_size
        with torch.no_grad():
            whole, parameters = model(ids), sum(p.numel() for p in model.parameters())
            self.cut = shard_model(model, self.rank, self.ranks)
            found = gather_logits(local_logits(model, ids), self.ranks)
        own = sum(p.numel() for p in model.parameters())
        self.extra = {"logit_error": float((found - whole).abs().max()), "logit_scale": float(whole.abs().max()), "share": own / parameters}
        self.model, self.optimizer = model, make_optimizer(model, self.job.settings)

    def backward(self, blocks_BT: Tensor) -> Tensor:
        from curriculum.parallel.tensor import local_logits, parallel_cross_entropy

        total, parts = torch.zeros(()), blocks_BT.chunk(self.job.settings.accumulate)
        for part in parts:
            logits = local_logits(self.model, part[:, :-1])
            loss = parallel_cross_entropy(logits, part[:, 1:], self.rank * logits.shape[-1])
            self.held = stored_bytes(self.model.parameters())
            (loss / len(parts)).backward()
            total = total + loss.detach() / len(parts)
        return total

    def step(self) -> None:
        clip_cut(dict(self.model.named_parameters()), self.cut, self.job.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def clip_cut(parameters: dict[str, nn.Parameter], cut: set[str], clip_norm: float) -> None:
    """Clip by the norm of a gradient whose ``cut`` parameters are parts of a whole, and whose others every rank holds: those count once."""
    grads = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    squares = sum((g.square().sum() for name, g in grads.items() if name in cut), torch.zeros((), dtype=torch.float64))
    dist.all_reduce(squares)
    squares = squares + sum(g.square().sum() for name, g in grads.items() if name not in cut)
    factor = (clip_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for grad in grads.values():
        grad.mul_(factor)


class Pipeline(Strategy):
    """One stage of the layers a rank, torch's GPipe schedule over ``job.micro`` micro-batches."""

    def prepare(self, model: Transformer) -> None:
        from torch.distributed.pipelining import ScheduleGPipe

        from curriculum.parallel.pipeline import Event, Stage, timed_loss, timed_stage

        stages, events = self.job.settings.stages, list[Event]()
        begin = sum(stages[: self.rank])
        self.model, self.events, self.steps = Stage(model, begin, begin + stages[self.rank]), events, list[list[Event]]()
        stage = timed_stage(self.model, self.rank, self.ranks, events)
        self.schedule = ScheduleGPipe(stage, self.job.micro, loss_fn=timed_loss(events, next_token_loss))
        self.optimizer, self.extra = make_optimizer(self.model, self.job.settings), {"events": self.steps}

    def backward(self, blocks_BT: Tensor) -> Tensor:
        self.events.clear()
        losses: list[Tensor] = []
        if self.ranks > 1:
            dist.barrier()  # stages begin a step together, so that its span is its own
        self.held = stored_bytes(self.model.parameters())
        first, last = self.rank == 0, self.rank == self.ranks - 1
        given = (blocks_BT[:, :-1].contiguous(),) if first else ()
        more: dict[str, Any] = {"target": blocks_BT[:, 1:].contiguous(), "losses": losses} if last else {}
        self.schedule.step(*given, **more)
        self.steps.append(list(self.events))
        return torch.stack(losses).mean().detach() if last else torch.zeros((), dtype=next(self.model.parameters()).dtype)

    def step(self) -> None:
        parameters = dict(self.model.named_parameters())
        clip_cut(parameters, set(parameters), self.job.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def mean(self, loss: Tensor) -> float:
        return mean_over_ranks(loss, self.ranks) * self.ranks  # all but the last stage have none


def make_strategy(job: Job, model: Transformer, rank: int, ranks: int) -> Strategy:
    """The job's strategy under its engine."""
    made: Callable[[Job, Transformer, int, int], Strategy]
    if job.engine != "torch":
        from curriculum.parallel.engines import ENGINES

        made = ENGINES[job.engine]
    else:
        made = {"tensor": TensorParallel, "pipeline": Pipeline}.get(job.strategy, DataParallel)
    return made(job, model, rank, ranks)
