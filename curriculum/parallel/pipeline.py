"""Pipeline parallelism: a decoder cut by depth, torch's GPipe schedule, and the bubble from the stages' own time stamps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.utils.checkpoint import checkpoint

from curriculum.transformer.blocks import Reading
from curriculum.transformer.model import Transformer

Event = tuple[str, int, float, float]  # "F" or "B", the micro-batch, begin and end in seconds of a clock that all ranks share


class Stage(nn.Module):
    """Blocks ``begin`` to ``end`` of a decoder; the first stage looks tokens up, the last one makes logits.

    ``recompute``: what is inside a block is computed a second time in the backward pass instead of being kept (Chen et al., 2016).
    """

    def __init__(self, model: Transformer, begin: int, end: int, *, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.embedding = model.embedding if begin == 0 else None
        self.blocks, self.rotary = model.decoder.blocks[begin:end], model.decoder.rotary
        last = end == len(model.decoder.blocks)
        self.norm, self.output = (model.decoder.norm, model.output) if last else (None, None)

    def forward(self, x: Tensor) -> Tensor:
        """Ids [B, T] or hidden states [B, T, C] to hidden states, or to logits [B, T, V]."""
        if self.embedding is not None:
            x = self.embedding(x)
        length = x.shape[1]
        reading = Reading(0, length, True, 0)
        reading.rotary = self.rotary(0, length, x.device)
        for block in self.blocks:
            x = checkpoint(_output, block, x, reading, use_reentrant=False) if self.recompute else _output(block, x, reading)
        return x if self.output is None else self.output(self.norm(x))


def _output(block: nn.Module, x: Tensor, reading: Reading) -> Tensor:
    return block(x, reading)[0]


def timed_stage(module: Stage, rank: int, ranks: int, events: list[Event]) -> PipelineStage:
    """A stage of torch's whose forward and backward passes add to ``events``, waiting for others left out."""
    stage = PipelineStage(module, rank, ranks, torch.device("cpu"))
    stage.forward_one_chunk = _timed(stage.forward_one_chunk, "F", events)
    stage.backward_one_chunk = _timed(stage.backward_one_chunk, "B", events)
    return stage


def _timed(call: Callable[..., Any], kind: str, events: list[Event]) -> Callable[..., Any]:
    def wrapped(number: int, *given: Any, **more: Any) -> Any:
        begin = time.monotonic()
        made = call(number, *given, **more)
        events.append((kind, number, begin, time.monotonic()))
        return made

    return wrapped


def timed_loss(events: list[Event], loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a micro-batch, its time added to the forward pass it follows."""

    def wrapped(logits: Tensor, targets: Tensor) -> Tensor:
        made = loss(logits, targets)
        if events:  # torch asks for a loss once before the first step as well, to learn its shape
            events[-1] = (*events[-1][:3], time.monotonic())
        return made

    return wrapped


def bubble_formula(stages: int, micro: int) -> float:
    """Share of the step that an even pipeline idles: (K - 1) / (m + K - 1) (Huang et al., 2019)."""
    return (stages - 1) / (micro + stages - 1)


def measured_bubble(stages: Sequence[Sequence[Event]]) -> float:
    """Idle share of one step: 1 - busy seconds of all stages over their number times the span from the first event to the last."""
    events = [event for stage in stages for event in stage]
    span = max(end for *_, end in events) - min(begin for *_, begin, _ in events)
    return 1 - sum(end - begin for *_, begin, end in events) / (len(stages) * span)


def replayed_bubble(stages: Sequence[Sequence[Event]], forward: float = 1.0, backward: float = 2.0) -> float:
    """Idle share if every forward and every backward pass took equally long, in the order in which the stages really ran them.

    A stage runs its events in its order, F of a micro-batch after the stage before and B after the stage behind. Noise of the machine is
    gone; what the schedule leaves idle is not.
    """
    done: dict[tuple[int, str, int], float] = {}
    clocks, places = [0.0] * len(stages), [0] * len(stages)
    while any(place < len(stage) for place, stage in zip(places, stages, strict=True)):
        moved = False
        for number, stage in enumerate(stages):
            if places[number] == len(stage):
                continue
            kind, micro = stage[places[number]][:2]
            other = number - 1 if kind == "F" else number + 1
            needed = (other, kind, micro) if 0 <= other < len(stages) else (number, "F", micro) if kind == "B" else None
            if needed is not None and needed not in done:
                continue
            start = max(clocks[number], done[needed] if needed else 0.0)
            clocks[number] = done[number, kind, micro] = start + (forward if kind == "F" else backward)
            places[number], moved = places[number] + 1, True
        if not moved:
            raise ValueError("these events are no schedule: every stage waits for another")
    busy = sum(len(stage) for stage in stages) / 2 * (forward + backward)
    return 1 - busy / (len(stages) * max(clocks))
