"""What a request goes through: the bundle in force, a lane for searches and one for answers, the feedback and the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing

from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from curriculum.rag.settings import RagSettings
from curriculum.serving.answers import Clock, answer, below, decided, find, weakest
from curriculum.serving.bundle import Bundle
from curriculum.serving.feedback import FeedbackStore
from curriculum.serving.lanes import Busy, Lane
from curriculum.serving.metrics import Metrics
from curriculum.serving.schemas import Answered, Found, Passage, Problem, Reason, Sentence
from curriculum.serving.served import Served
from curriculum.serving.settings import ServingSettings

_log = logging.getLogger(__name__)
BUSY = "too many requests wait for the models; try again"


class Service:
    """What the routes share. Its lanes are threads: it ends with :meth:`close`."""

    def __init__(
        self, load: Callable[[], Served], feedback: FeedbackStore, rag: RagSettings, settings: ServingSettings, profile: str
    ) -> None:
        self.loading = Lane("loading", 1)
        try:
            self.served = self.loading.run(load)  # Java and the models start in the thread that loads later versions too
        except BaseException:
            self.loading.close()
            raise
        self.searches, self.answers = (Lane(name, settings.max_waiting) for name in ("searches", "answers"))
        self.feedback, self.rag, self.settings, self.profile = feedback, rag, settings, profile
        self.metrics = Metrics()

    async def watch(self) -> None:
        """Put newly promoted versions in force, until cancelled."""
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            with contextlib.suppress(TimeoutError, Busy):  # it is still loading one
                await self.loading.call(self.served.refresh, seconds=3600)

    def close(self) -> None:
        """End the threads, after what they are doing."""
        for lane in (self.searches, self.answers, self.loading):
            lane.close()

    async def find(self, bundle: Bundle, query: str, count: int, clock: Clock, seconds: float) -> list[Passage]:
        """Passages by the search lane, in ``clock`` its stages."""
        with refusals():
            return await self.searches.call(lambda: find(bundle, query, count, clock=clock), seconds)

    async def search(self, query: str, count: int) -> Found:
        """Everything /search gives."""
        begun, clock, bundle, request_id = time.perf_counter(), Clock(), self.served.bundle, uuid.uuid4().hex
        passages = await self.find(bundle, query, count, clock, self.settings.search_seconds)
        clock.total(begun)
        self._done("search", request_id, query, passages, "", bundle, clock)
        return Found(request_id=request_id, query=query, passages=passages, milliseconds=clock.milliseconds, versions=dict(bundle.versions))

    async def ask(self, question: str) -> AsyncIterator[bytes]:
        """The events of an answer. The passages are found, and a place in the lane is had, before this returns.

        Its sentences come as they are verified; where a threshold of abstention is in force, when all are.
        """
        begun, clock, bundle = time.perf_counter(), Clock(), self.served.bundle
        request_id, seconds = uuid.uuid4().hex, self.settings.ask_seconds
        passages = await self.find(bundle, question, self.rag.contexts, clock, min(seconds, self.settings.search_seconds))
        if self.answers.full:
            raise HTTPException(503, BUSY, {"Retry-After": "1"})
        found = Found(request_id=request_id, query=question, passages=passages, milliseconds=dict(clock.milliseconds), versions=dict(bundle.versions))
        ids, withhold, threshold = [p.passage_id for p in passages], self.settings.unsupported == "withhold", bundle.abstention.threshold

        async def events() -> AsyncIterator[bytes]:
            said: list[Sentence] = []
            made = self.answers.stream(lambda: answer(bundle, question, ids, withhold=withhold, clock=clock), seconds - (time.perf_counter() - begun))
            try:
                async with aclosing(made):
                    yield event("passages", found)
                    async for sentence in made:
                        said.append(sentence)
                        if threshold is None:
                            yield event("sentence", sentence)
            except Exception as error:
                yield event("error", Problem(detail=_failed(error, seconds)))
                return
            if threshold is not None:
                said = decided(said, threshold)
                for sentence in said:
                    yield event("sentence", sentence)
            clock.total(begun)
            ended = _ended(request_id, question, said, clock, bundle)
            self._done("ask", request_id, question, passages, ended.answer, bundle, clock)
            unsupported = ended.unsupported
            self.metrics.answered(len(said) - unsupported, unsupported, abstained=ended.abstained)
            yield event("done", ended)

        return events()

    def _done(self, kind: str, request_id: str, query: str, passages: list[Passage], text: str, bundle: Bundle, clock: Clock) -> None:
        self.metrics.stages(clock.milliseconds)
        shown = {p.passage_id: p.text for p in passages}
        record = {"kind": kind, "query": query, "passages": shown, "answer": text, "versions": dict(bundle.versions)}
        self.feedback.remember(request_id, record)


def _ended(request_id: str, question: str, said: list[Sentence], clock: Clock, bundle: Bundle) -> Answered:
    given, threshold = [sentence for sentence in said if not sentence.withheld], bundle.abstention.threshold
    reason: Reason | None = None if given else "no_draft" if not said else "below_threshold" if below(said, threshold) else "unsupported"
    return Answered(
        request_id=request_id, question=question, answer=" ".join(s.text for s in given), abstained=not given,
        reason=reason, support=weakest(said), threshold=threshold,
        withheld=len(said) - len(given), unsupported=sum(not s.supported for s in said),
        citations=list(dict.fromkeys(c for s in given for c in s.citations)), milliseconds=clock.milliseconds, versions=dict(bundle.versions),
    )  # fmt: skip


def _failed(error: Exception, seconds: float) -> str:
    """What the asker is told of a failure. Its own words go to the log alone: they may name paths and addresses."""
    if isinstance(error, Busy):
        return BUSY
    if isinstance(error, TimeoutError):
        return f"the answer was given up after {seconds:g} seconds"
    _log.error("an answer failed", exc_info=error)
    return "the answer failed; the service's log says why"


def event(name: str, value: BaseModel) -> bytes:
    """One server-sent event."""
    return format_sse_event(event=name, data_str=value.model_dump_json())


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """A full lane is 503, a call that takes too long 504."""
    try:
        yield
    except Busy:
        raise HTTPException(503, BUSY, {"Retry-After": "1"}) from None
    except TimeoutError:
        raise HTTPException(504, "the search took too long") from None
