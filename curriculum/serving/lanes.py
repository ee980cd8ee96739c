"""A lane: one thread that makes one call after another, so that no model, tokenizer or index is used by two requests at once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, TypeVar

from curriculum.retrieval.java import leave_java

T = TypeVar("T")
_END = object()


class Busy(Exception):
    """As many calls are in the lane as may be."""


class Lane:
    """Calls from the event loop, made in order by one thread; at most ``places`` of them at a time, the running one included.

    A call that has begun cannot be interrupted: given up, it holds its place until it ends.
    """

    def __init__(self, name: str, places: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock, self._free = threading.Lock(), places

    @property
    def full(self) -> bool:
        """Whether one more call would be refused."""
        return self._free <= 0

    def run(self, function: Callable[[], T]) -> T:
        """What ``function`` returns, for a caller without an event loop, who waits."""
        return self._pool.submit(function).result()

    async def call(self, function: Callable[[], T], seconds: float) -> T:
        """What ``function`` returns. Raises what it raises, and as :meth:`stream`."""
        async with aclosing(self.stream(lambda: iter([function()]), seconds)) as made:
            return await anext(made)

    async def stream(self, make: Callable[[], Iterator[T]], seconds: float) -> AsyncIterator[T]:
        """The items of an iterator that lives in the lane's thread. Closed, it is closed there after its present item.

        Raises:
            Busy: the lane is full.
            TimeoutError: it did not end within ``seconds``, waiting included.
        """
        loop, items, closed = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

        def give(item: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(items.put_nowait, item)

        work, end = self._submit(_drain, make, closed, give), loop.time() + seconds
        try:
            while (item := await asyncio.wait_for(items.get(), max(0.0, end - loop.time()))) is not _END:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            closed.set()
            work.cancel()

    def _submit(self, function: Callable[..., None], *arguments: Any) -> Any:
        with self._lock:
            if self._free <= 0:
                raise Busy
            work = self._pool.submit(function, *arguments)
            self._free -= 1
        work.add_done_callback(lambda _: self._leave())
        return work

    def _leave(self) -> None:
        with self._lock:
            self._free += 1

    def close(self) -> None:
        """Wait for the calls that were accepted, and end the thread. Closing it again does nothing."""
        with contextlib.suppress(RuntimeError):  # it was closed before
            self._pool.submit(leave_java)
        self._pool.shutdown()


def _drain(make: Callable[[], Iterator[Any]], closed: threading.Event, give: Callable[[Any], None]) -> None:
    """Hand over the items, then the end or the error. An item that is an exception counts as the error."""
    items: Any = ()
    try:
        items = make() if not closed.is_set() else ()
        for item in items:
            give(item)
            if closed.is_set():
                break
    except BaseException as error:
        give(error)
    finally:
        close = getattr(items, "close", None)
        if close:
            close()
        give(_END)
