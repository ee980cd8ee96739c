"""Which batch is with which worker: plain bookkeeping, without a clock or a network, so that every order of events can be tried."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from curriculum.errors import DataError

EACH = 2  # batches in a worker's hands: it finds the next one there when it has finished one
AHEAD = 64  # a worker: how far the first unfinished batch may lie behind, for what is finished waits for it
TRIES = 3  # workers that one batch may end


class Board:
    """Numbered batches, taken from ``batches`` no sooner than a worker could have them, each finished once whoever dies meanwhile."""

    def __init__(self, batches: Iterable[list[str]]) -> None:
        self._batches = enumerate(batches)
        self._exhausted = False
        self._texts: dict[int, list[str]] = {}  # taken up, and not finished
        self._waiting: list[int] = []  # of these, with no worker; a heap
        self._held: dict[str, list[int]] = {}  # worker -> what it has, in the order it was given
        self._ended: dict[int, int] = {}  # batch -> workers that died over it

    def draw(self) -> int | None:
        """Take up the next batch unless one waits already. Its number if it is empty, and so finished; None otherwise."""
        if self._waiting or self._exhausted or (self._texts and self._next() - min(self._texts) > AHEAD * max(1, len(self._held))):
            return None
        found = next(self._batches, None)
        if found is None:
            self._exhausted = True
            return None
        self._drawn, texts = found
        if not texts:
            return self._drawn
        self._texts[self._drawn] = texts
        heapq.heappush(self._waiting, self._drawn)
        return None

    def _next(self) -> int:
        return self._drawn + 1

    def join(self, worker: str) -> None:
        """A worker is ready."""
        self._held.setdefault(worker, [])

    def give(self) -> tuple[str, int, list[str]] | None:
        """(worker, number, texts): the first batch that waits, to the worker that has least in hand; None where that is not to be."""
        worker = min(self._held, key=lambda name: (len(self._held[name]), name), default=None)
        if not self._waiting or worker is None or len(self._held[worker]) >= EACH:
            return None
        number = heapq.heappop(self._waiting)
        self._held[worker].append(number)
        return worker, number, self._texts[number]

    def finish(self, worker: str, number: int) -> None:
        """``worker`` has answered."""
        self._held[worker].remove(number)
        del self._texts[number]
        self._ended.pop(number, None)

    def lose(self, worker: str) -> list[int]:
        """``worker`` is gone: what it had in hand waits for another, and is returned.

        Raises:
            DataError: the batch that it was at has ended several workers: it would end the next one too.
        """
        lost = self._held.pop(worker, [])
        for number in lost:
            heapq.heappush(self._waiting, number)
        if lost:
            self._ended[lost[0]] = self._ended.get(lost[0], 0) + 1
            if self._ended[lost[0]] >= TRIES:
                raise DataError(
                    f"batch {lost[0]} of the passages ended {TRIES} workers, the last one {worker}; look there for why (memory, mostly), "
                    "and lower retrieval.batch_size or retrieval.max_tokens"
                )
        return lost

    @property
    def over(self) -> bool:
        """Whether every batch is finished."""
        return self._exhausted and not self._texts
