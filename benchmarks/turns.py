"""The one way that races are run: every side in turn, so that all see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def in_turns(runs: dict[str, Callable[[int], Any]], rounds: int, *, warm_up: int) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Milliseconds of each call, and what it returned, a list a side. A side is called with the number of the round.

    The times of the first ``warm_up`` rounds, which are besides the ``rounds``, are left out; what they returned is not.
    """
    spent: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, list[Any]] = {name: [] for name in runs}
    for number in range(rounds + warm_up):
        for name, run in runs.items():
            begun = time.perf_counter()
            found[name].append(run(number))
            spent[name].append(1000 * (time.perf_counter() - begun))
    return {name: values[warm_up:] for name, values in spent.items()}, found
