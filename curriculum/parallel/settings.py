"""Shape, budget and launchers of the parallelism studies."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from curriculum.transformer.settings import TrainingSettings, check_heads

Launcher = Literal["plain", "torchrun", "accelerate", "deepspeed"]
Strategy = Literal["single", "ddp", "zero1", "zero2", "zero3", "tensor", "pipeline"]
LAUNCHERS: tuple[Launcher, ...] = get_args(Launcher)


class ParallelSettings(TrainingSettings):
    """One small Transformer and one order of blocks, whatever the ranks do with them.

    A step reads ``batch_size * accumulate`` blocks on all ranks together, in ``accumulate`` micro-batches. The defaults are about two
    dozen runs of a dozen steps at two million parameters: some three minutes on two cores, most of it spent starting processes.
    """

    ranks: int = Field(2, ge=2, description="processes of a parallel run; of a pipeline its stages")
    length: int = Field(64, gt=1, description="tokens a block predicts")
    blocks: int = Field(256, gt=0, description="blocks of the corpus that are read, at most")
    steps: int = Field(12, gt=2)
    batch_size: int = Field(8, gt=0, description="blocks a micro-batch, on all ranks together")
    accumulate: int = Field(2, gt=0, description="micro-batches an optimizer step")
    warmup_steps: int = 2
    checkpoint_every: int = Field(4, gt=0)
    layers: int = Field(6, gt=1)
    width: int = Field(128, gt=0)
    heads: int = Field(4, gt=0)
    kv_heads: int = Field(2, gt=0)
    hidden: int = Field(352, gt=0)
    stages: tuple[int, ...] = Field((5, 1), description="layers a pipeline stage; the output layer, as much work as three or four, is the last one's")
    micro_batches: tuple[int, ...] = Field((1, 2, 4, 8), min_length=2, description="micro-batches of a pipeline's step, a run each")
    parts: int = Field(4, gt=1, description="micro-batches of the accumulated gradient")
    launchers: tuple[Launcher, ...] = Field(LAUNCHERS, min_length=1, description="what starts the training entry point, plain first")
    deepspeed_stages: tuple[Literal[1, 2, 3], ...] = Field((1, 2, 3), min_length=1, description="ZeRO stages under deepspeed, a run each")
    deepspeed: str = Field(".tools/deepspeed", description="folder that `make deepspeed` filled; from the project's folder")
    timeout_seconds: int = Field(120, gt=0, description="how long a rank waits for another")

    @model_validator(mode="after")
    def _divisible(self) -> ParallelSettings:
        check_heads(self.width, self.heads, self.kv_heads)
        shares = {"heads": self.heads, "kv_heads": self.kv_heads, "hidden": self.hidden, "batch_size": self.batch_size}
        if uneven := [f"{name} {value}" for name, value in shares.items() if value % self.ranks]:
            raise ValueError(f"{', '.join(uneven)} must divide by ranks {self.ranks}")
        if len(self.stages) != self.ranks or sum(self.stages) != self.layers or min(self.stages) < 1:
            raise ValueError(f"stages {self.stages} must be {self.ranks} numbers of layers that add up to layers {self.layers}")
        if wrong := [m for m in self.micro_batches if self.step_blocks % m]:
            raise ValueError(f"micro_batches {wrong} must divide batch_size * accumulate, {self.step_blocks}")
        if "plain" not in self.launchers:
            raise ValueError("launchers must name plain: the others are compared with it")
        if self.step_blocks % self.parts:
            raise ValueError(f"parts {self.parts} must divide batch_size * accumulate, {self.step_blocks}")
        return self

    @property
    def step_blocks(self) -> int:
        """Blocks an optimizer step, on all ranks together."""
        return self.batch_size * self.accumulate
