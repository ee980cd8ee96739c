"""The data-parallel step taken over by a library: accelerate's loop, or deepspeed's engine. What is learned must be the same."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from curriculum.errors import UserError
from curriculum.parallel.strategies import DataParallel
from curriculum.transformer.model import Transformer
from curriculum.transformer.training import make_optimizer


class Accelerated(DataParallel):
    """accelerate wraps model and optimizer, and owns backward and clipping."""

    def prepare(self, model: Transformer) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=True, mixed_precision="no")
        self.model, self.optimizer = self.accelerator.prepare(model, make_optimizer(model, self.job.settings))
        self.extra = {"engine": type(self.model).__name__, "processes": self.accelerator.num_processes}

    def quiet(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def differentiate(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def step(self) -> None:
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.job.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class DeepSpeed(DataParallel):
    """deepspeed owns the step: accumulation, clipping and sharding are its configuration's, not the loop's."""

    def prepare(self, model: Transformer) -> None:
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # its own collectives in shared memory would be compiled now
        settings = self.job.settings
        if settings.batch_size % self.ranks:
            raise UserError(f"parallel.batch_size {settings.batch_size} must divide by the {self.ranks} ranks")
        config = {
            "train_micro_batch_size_per_gpu": settings.batch_size // self.ranks, "gradient_accumulation_steps": settings.accumulate,
            "gradient_clipping": settings.clip_norm, "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {"stage": {"single": 0, "ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3}[self.job.strategy]},
        }  # fmt: skip
        optimizer = make_optimizer(model, settings)
        self.model, self.optimizer, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
        self.extra = {"engine": type(self.model).__name__, "processes": self.model.world_size}

    def quiet(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, blocks_BT: Tensor) -> Tensor:
        from curriculum.parallel.strategies import next_token_loss

        parts = blocks_BT.chunk(self.job.settings.accumulate)
        total = blocks_BT.new_zeros((), dtype=next(self.model.parameters()).dtype)
        for part in parts:
            loss = next_token_loss(self.model(part[:, :-1]), part[:, 1:])
            self.model.backward(loss)  # divides by the accumulation steps itself
            self.model.step()  # steps after the last of them alone
            total += loss.detach() / len(parts)
        return total

    def step(self) -> None:
        """Taken with the last micro-batch."""

    def memory(self) -> dict[str, int]:
        return {}  # in flat buffers of its own


ENGINES = {"accelerate": Accelerated, "deepspeed": DeepSpeed}
