"""The HTTP application: /search, /ask, /feedback, /healthz, /metrics, and a page for people at /."""

import asyncio
import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.security import APIKeyHeader
from pydantic import ConfigDict, Field, create_model
from starlette.exceptions import HTTPException

from curriculum.serving.guard import Guard
from curriculum.serving.schemas import Feedback, Found, Health, Kept, Problem
from curriculum.serving.service import Service
from curriculum.serving.settings import ServingSettings

PAGE = Path(__file__).with_name("page.html")
REFUSALS = {
    400: "the body cannot be read", 401: "no key, or another one", 408: "the body arrived too slowly", 413: "the body is too long",
    422: "a field is missing, unknown, too long or out of range", 429: "too many requests of one address",
    503: "too many requests wait for the models", 504: "it took too long",
}  # fmt: skip
EVENTS = (
    "Server-sent events: `passages` (a Found: what the answer is written from), then each `sentence` as soon as it is verified (a Sentence; "
    "all together at the end where an abstention threshold is in force), then `done` (an Answered), or `error` (a Problem) where it failed half-way."
)

EVENT = {
    "type": "object", "required": ["event", "data"],
    "properties": {"event": {"enum": ["passages", "sentence", "done", "error"]}, "data": {"type": "string", "contentMediaType": "application/json"}},
}  # fmt: skip


class EventStream(StreamingResponse):
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    media_type = "text/event-stream"


def create_app(service: Service, *, key: str = "", hosts: frozenset[str] = frozenset()) -> Any:
    """The ASGI application over ``service``, which it closes when it ends.

    ``key`` is asked of every request but for the page, /healthz and /openapi.json; "" asks for none. ``hosts`` are the names
    that a Host header may have; any where there are none.
    """
    settings = service.settings
    app = FastAPI(
        title="curriculum serve", version="1", description="Search and cited answers, from the promoted versions.", lifespan=_lifespan(service),
        docs_url=None, redoc_url=None, max_body_size=settings.max_body_bytes,  # FastAPI's pages of documentation fetch scripts from elsewhere
    )  # fmt: skip
    app.add_exception_handler(RequestValidationError, _one_message)
    app.include_router(_questions(service, [Security(APIKeyHeader(name="X-API-Key", auto_error=False))] if key else []))
    app.include_router(_state(service))
    paths = {"/", "/openapi.json", *app.openapi()["paths"]}
    guarded = Guard(app, key=key, hosts=hosts, settings=settings)
    return service.metrics.watched(guarded, paths)


def _lifespan(service: Service) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(service.watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.to_thread(service.close)

    return lifespan


def _requests(settings: ServingSettings) -> tuple[Any, Any]:
    """The models of a search and of a question, with the limits of the settings."""
    closed = ConfigDict(extra="forbid")
    text = Field(min_length=1, max_length=settings.max_query_chars)
    count = Field(settings.results, ge=1, le=settings.max_results, description="passages wanted")
    search = create_model("SearchRequest", __config__=closed, query=(str, text), count=(int, count))
    return search, create_model("AskRequest", __config__=closed, question=(str, text))


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": REFUSALS[status]} for status in statuses}


def _questions(service: Service, security: list[Any]) -> APIRouter:
    """What costs a computation, or writes."""
    search_request, ask_request = _requests(service.settings)
    by_get, by_post = _refused(401, 422, 429, 503, 504), _refused(*REFUSALS)
    keyed = _refused(401, 429)
    routes = APIRouter(dependencies=security)
    streamed = {200: {"description": EVENTS, "content": {"text/event-stream": {"schema": EVENT}}}}

    @routes.get("/search", responses=by_get)
    async def search(asked: Annotated[search_request, Query()]) -> Found:
        """Passages for a query, with the scores of each leg and the milliseconds of each stage."""
        return await service.search(asked.query, asked.count)

    @routes.post("/search", responses=by_post)
    async def search_by_body(asked: search_request) -> Found:
        """The same with the query in the body, where no log of addresses keeps it."""
        return await service.search(asked.query, asked.count)

    @routes.get("/ask", responses={**by_get, **streamed}, response_class=Response)
    async def ask(asked: Annotated[ask_request, Query()]) -> Response:
        """An answer sentence by sentence, each verified and with its citations."""
        return EventStream(await service.ask(asked.question))

    @routes.post("/ask", responses={**by_post, **streamed}, response_class=Response)
    async def ask_by_body(asked: ask_request) -> Response:
        """The same with the question in the body."""
        return EventStream(await service.ask(asked.question))

    @routes.post("/feedback", status_code=201, responses={**_refused(400, 401, 408, 413, 422, 429), 404: {"model": Problem}})
    def feedback(given: Feedback) -> Kept:
        """Keep what a person thought of an answer, with the versions that answered."""
        record = service.feedback.store(given)
        if record is None:
            raise HTTPException(404, "no such answer is remembered, or it does not have this passage")
        service.metrics.feedback(given.verdict)
        return Kept(feedback_id=record["feedback_id"], versions=record["versions"])

    @routes.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **keyed}, response_class=Response)
    def metrics() -> Response:
        """Counters and times in Prometheus' text format."""
        served = service.served
        text = service.metrics.text(served.bundle.versions, served.swaps, served.problem)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _state(service: Service) -> APIRouter:
    """What is free to anyone who reaches the service."""
    routes = APIRouter()
    page = PAGE.read_text(encoding="utf-8")
    policy = _policy(page)

    @routes.get("/", include_in_schema=False)
    async def people() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @routes.get("/healthz")
    async def healthz() -> Health:
        """What is served, and what keeps a newer version from being served."""
        served = service.served
        return Health(
            status="ok", profile=service.profile, versions=dict(served.bundle.versions), search=served.bundle.setting,
            abstention=served.bundle.abstention, since=served.since, swaps=served.swaps, problem=served.problem,
        )  # fmt: skip

    return routes


def _policy(page: str) -> str:
    """A policy under which the page runs its own script and style, and asks its own server alone."""

    def hashes(tag: str) -> str:
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inside)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _one_message(_: Request, error: RequestValidationError) -> JSONResponse:
    """The first thing that is wrong, without repeating what was sent."""
    first = error.errors()[0]
    where = [part for part in first["loc"][1:] if isinstance(part, str)] or ["body"]  # past "body" or "query", which say where it came from
    return JSONResponse({"detail": f"{'.'.join(where)}: {first['msg']}"}, 422)
