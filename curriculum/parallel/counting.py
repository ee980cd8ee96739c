"""What ranks send each other, counted where the collectives are called, beside the volumes of ring algorithms."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# collective -> which argument is the whole vector, and how many times (N - 1) / N of it a rank of a ring sends
_RINGS = {"allreduce_": (0, 2), "_allgather_base_": (0, 1), "_reduce_scatter_base_": (1, 1), "allgather_": (0, 1), "reduce_scatter_": (1, 1)}


class CollectiveCounter(TorchDispatchMode):
    """Counts collectives called inside the block, those of DDP's reducer and of FSDP2 among them.

    ``payload``: bytes of the whole vector, by collective. The backend may move them by another algorithm; :meth:`ring_bytes` is what one
    rank of a ring sends for them (Patarasuk and Yuan, 2009). Of a broadcast the root sends all; ``rank`` says who is asking.
    """

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__()
        self.rank, self.ranks = rank, ranks
        self.payload: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.sent = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self._count(func._schema.name.removeprefix("c10d::"), args)
        return func(*args, **(kwargs or {}))

    def _count(self, name: str, args: Any) -> None:
        if name in {"recv_", "barrier", "monitored_barrier_"}:
            return
        place, passes = _RINGS.get(name, (0, 0))
        size = _bytes(args[place])
        self.payload[name] += size
        self.calls[name] += 1
        if name in _RINGS:
            self.sent += passes * (self.ranks - 1) / self.ranks * size
        elif name == "send" or (name == "broadcast_" and args[2] == self.rank):
            self.sent += size

    def record(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {"payload": dict(self.payload), "calls": dict(self.calls), "sent": self.sent}


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


def expected_traffic(strategy: str, parameter_bytes: float, ranks: int) -> float:
    """Bytes a rank sends a step under the ring formulas: 2 (N - 1) / N of the gradient, or 3 for stage 3 (Rajbhandari et al., 2020)."""
    volumes = {"single": 0, "ddp": 2, "zero1": 2, "zero2": 2, "zero3": 3}
    return volumes[strategy] * (ranks - 1) / ranks * parameter_bytes


def expected_memory(strategy: str, parameter_bytes: float, ranks: int) -> dict[str, float]:
    """Bytes of parameters, gradients and AdamW's two moments a rank holds, parameters between forward and backward pass."""
    shards = {"single": "", "ddp": "", "zero1": "o", "zero2": "og", "zero3": "ogp"}[strategy]
    whole = {"parameters": 1, "gradients": 1, "optimizer": 2}
    return {part: times * parameter_bytes / (ranks if part[0] in shards else 1) for part, times in whole.items()}
