"""Workers on the machines of a Ray cluster: batches are given to them, and what they answer is given out as it comes.

The driver alone reads and writes files: it sends what a worker needs and gets arrays back, so the machines need share nothing but an
installation of this project. A worker that is lost, with its machine or alone, gives its batches to the others; machines that join are used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from curriculum.cluster.board import Board
from curriculum.errors import UserError

PATIENCE_SECONDS = 600.0  # without any worker: a cluster that is busy with others' work, or too small for one
LOOK_SECONDS = 2.0  # how often the cluster is asked what it has
_NOTHING = np.empty((0, 0), dtype=np.float32)


class Workers:
    """An encoder of passages (:func:`curriculum.retrieval.dense.encoded_batches`) that starts its workers when it is first asked.

    ``kind`` is what a worker is: a class with ``dimension()`` and ``passages(texts)``; ``arguments`` gives what it is made from. Each takes what
    ``needs`` says (``{"CPU": 1}``), and there are as many as the cluster holds.
    """

    def __init__(
        self, ray: Any, kind: type, arguments: Callable[[], tuple[Any, ...]], needs: dict[str, int], progress: Callable[[str], None]
    ) -> None:
        self._ray, self._make_arguments, self._needs, self._progress = ray, arguments, needs, progress
        self._class = ray.remote(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_restarts=0)(kind)
        self._arguments: list[Any] = []  # in the cluster's store
        self._started = 0
        self._workers: dict[str, Any] = {}
        self._starting: dict[Any, str] = {}  # the answer to whether it is ready -> worker
        self._flying: dict[Any, tuple[str, int]] = {}  # the answer -> its worker, its batch
        self._dimension: int | None = None
        self._looked = self._seen = 0.0  # when the cluster was asked what it has; when a worker was there

    @property
    def dimension(self) -> int:
        """Length of a vector: the first worker's answer."""
        self._seen = time.monotonic()
        while self._dimension is None:
            self._level()
            self._finished(Board([]))  # nothing is in anyone's hands before the first is ready
        return self._dimension

    def passages(self, texts: list[str]) -> np.ndarray:
        """float32 [texts, dimension]."""
        return next(self.map([texts]))[1]

    def map(self, batches: Iterable[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, vectors) of every batch as it is finished, in any order; an empty one at once.

        Raises:
            UserError: no worker could be started; or what a worker raised.
            DataError: one batch ended several workers.
        """
        board, self._seen = Board(batches), time.monotonic()
        self._flying.clear()  # of an earlier call that was left half-way
        while True:
            for worker in self._ready():  # also those that became so while ``batches`` asked for the dimension
                board.join(worker)
            for empty in self._hand_out(board):
                yield empty, _NOTHING
            if board.over:
                return
            self._level()
            for worker, number, vectors in self._finished(board):
                board.finish(worker, number)
                yield number, np.array(vectors)  # what Ray gives is a view into its store, and would fill it

    def close(self) -> None:
        """End the workers; the cluster goes on."""
        for worker in self._workers.values():
            self._ray.kill(worker)
        self._workers.clear()
        self._starting.clear()
        self._flying.clear()
        self._arguments.clear()

    def _hand_out(self, board: Board) -> Iterator[int]:
        """Give every worker what it has room for; the empty batches that were met."""
        while True:
            empty = board.draw()
            if empty is not None:
                yield empty
                continue
            given = board.give()
            if given is None:
                return
            worker, number, texts = given
            self._flying[self._workers[worker].passages.remote(texts)] = worker, number

    def _ready(self) -> list[str]:
        starting = set(self._starting.values())
        return [worker for worker in self._workers if worker not in starting]

    def _level(self) -> None:
        """Start as many workers as the cluster has room for at present: it loses machines and gains others."""
        if self._workers and time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        found = self._ray.cluster_resources()
        room = int(min(found.get(kind, 0) // count for kind, count in self._needs.items()))
        for _ in range(max(1, room) - len(self._workers)):
            if not self._arguments:
                self._arguments = [self._ray.put(argument) for argument in self._make_arguments()]
            self._started += 1
            self._workers[f"worker {self._started}"] = made = self._class.remote(*self._arguments)
            self._starting[made.dimension.remote()] = f"worker {self._started}"

    def _finished(self, board: Board) -> list[tuple[str, int, Any]]:
        """Wait a moment; (worker, number, answer) of what was finished. Who was lost leaves the board, who has become ready is :meth:`_ready`."""
        asked, finished = [*self._starting, *self._flying], list[tuple[str, int, Any]]()
        for reference in self._ray.wait(asked, num_returns=1, timeout=LOOK_SECONDS)[0] if asked else ():
            worker, number = (self._starting.pop(reference), None) if reference in self._starting else self._flying.pop(reference)
            answer = self._answer(reference, worker)
            if answer is None:
                self._lose(worker, board)
            elif number is None:
                self._dimension = answer
                self._progress(f"{worker} is ready; {len(self._ready())} of {len(self._workers)} are")
            else:
                finished.append((worker, number, answer))
        self._seen = time.monotonic() if self._ready() else self._seen
        if time.monotonic() - self._seen > PATIENCE_SECONDS:
            raise UserError(
                f"no worker of the Ray cluster has been ready for {PATIENCE_SECONDS:.0f} s: each takes {self._needs}, and free are "
                f"{self._ray.available_resources()}; free some, or lower compute.threads"
            )
        return finished

    def _answer(self, reference: Any, worker: str) -> Any:
        """What the worker answered; None where it is gone. What it raised is raised here."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            if getattr(error, "actor_init_failed", False):  # it would on the next one too
                raise UserError(f"{worker} of the Ray cluster could not be made: {str(error).strip().splitlines()[-1]}") from error
            self._progress(f"{worker} is gone: {type(error).__name__}")
            return None

    def _lose(self, worker: str, board: Board) -> None:
        self._ray.kill(self._workers.pop(worker))  # where it is gone already, this does nothing
        self._flying = {reference: where for reference, where in self._flying.items() if where[0] != worker}
        lost = board.lose(worker)
        self._progress(f"{len(lost)} batches of {worker} wait for another; ready are {len(self._ready())}")
