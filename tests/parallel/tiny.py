"""The smallest run that has every part: two layers, two ranks, a checkpoint and a step after it."""

from __future__ import annotations

from typing import Any

import torch

from curriculum.evaluation.gate import Verdict, judge
from curriculum.parallel.settings import ParallelSettings
from curriculum.syllabus import load_syllabus

TINY = ParallelSettings(
    length=16, blocks=24, steps=4, batch_size=4, accumulate=2, warmup_steps=1, checkpoint_every=2, layers=2, stages=(1, 1), width=16, heads=4,
    kv_heads=2, hidden=32, micro_batches=(1, 4), launchers=("plain",), timeout_seconds=60,
)  # fmt: skip
VOCABULARY = 300
BLOCKS = torch.randint(VOCABULARY, (24, 17), generator=torch.Generator().manual_seed(0))


def passes(asset: str, metric: str, value: Any) -> bool:
    """Whether the syllabus's claim on a metric holds for ``value``."""
    (bar,) = [bar for bar in load_syllabus().claims if (bar.asset, bar.metric) == (asset, metric)]
    return judge(bar, value).verdict is Verdict.PASSED
