"""One training run as a file: what every rank of it is told, however it was started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from curriculum.errors import UserError
from curriculum.parallel.settings import ParallelSettings, Strategy
from curriculum.storage import digest_of
from curriculum.transformer.config import ModelConfig

Engine = Literal["torch", "accelerate", "deepspeed"]
CHECKPOINTED: tuple[Strategy, ...] = ("single", "ddp", "zero2", "zero3")  # what the whole state can be gathered from, under the engine torch


class Job(BaseModel):
    """A run of :mod:`curriculum.parallel.train`.

    ``blocks``: a safetensors file with ``blocks``, int64 [n, length + 1]. ``meeting``: a file that does not exist yet, in which the ranks
    find each other. ``checkpoints``: a folder, or empty for none. ``micro``: micro-batches of a pipeline's step. ``killed``: (rank, step)
    at which a rank kills itself, for drills of what then holds. ``precision``: in float32 the rounding of another order of sums grows, by way of
    AdamW's normalised steps, to 1e-4 of a loss within a dozen of them; in float64 what is left of a difference is a fault.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Strategy
    engine: Engine = "torch"
    settings: ParallelSettings
    vocab_size: int
    seed: int
    blocks: str
    out: str
    meeting: str = ""
    checkpoints: str = ""
    micro: int = 1
    precision: Literal["float32", "float64"] = "float64"
    killed: tuple[int, int] | None = None

    def shape(self) -> ModelConfig:
        """The model. Its output layer is not tied: on the two ends of a pipeline, tied tables would be two copies that drift apart."""
        s = self.settings
        return ModelConfig(self.vocab_size, s.layers, s.width, s.heads, s.kv_heads, s.hidden, tied=False)

    def digest(self) -> str:
        """What a checkpoint must have been made from to be resumed: not the ranks, the strategy or the launcher."""
        apart = {"ranks", "launchers", "deepspeed", "deepspeed_stages", "timeout_seconds", "stages", "micro_batches", "parts"}
        return digest_of([self.settings.model_dump(mode="json", exclude=apart), self.vocab_size, self.seed, self.precision])

    def result(self, rank: int) -> dict[str, Any]:
        """What a rank of the finished run wrote.

        Raises:
            UserError: it wrote nothing, so the run did not finish.
        """
        path = Path(self.out) / f"rank{rank}.json"
        if not path.exists():
            raise UserError(f"rank {rank} of the run in {self.out} left no result; run it again")
        return json.loads(path.read_text(encoding="utf-8"))


def load_job(path: Path) -> Job:
    """Read a settings file.

    Raises:
        UserError: it is not there or not a job; the fields to change are named. Or the strategy cannot do what is asked.
    """
    try:
        job = Job.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no settings file {path}: {error.strerror}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path} is not a training run: {wrong}") from error
    if job.checkpoints and (job.strategy not in CHECKPOINTED or job.engine != "torch"):
        raise UserError(f"strategy '{job.strategy}' by {job.engine} writes no checkpoints: leave checkpoints empty, or use {', '.join(CHECKPOINTED)}")
    return job
