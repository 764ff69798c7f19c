"""The ASGI application: the session routes, the chat page, health and metrics."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Sequence
from hashlib import sha256
from importlib import resources
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from turnwise import telemetry
from turnwise.channels.access import Access, Authorize, bearer
from turnwise.channels.http import HTTPChannel, ShortCut
from turnwise.channels.websocket import WebSocketChannel
from turnwise.channels.wire import JSON, ProblemRoute, as_problem, read_body
from turnwise.demo import IDEAS, has_model
from turnwise.errors import TurnwiseError, Unauthorized
from turnwise.markdown import to_html
from turnwise.runtime import Runtime
from turnwise.settings import Settings
from turnwise.targets import load_bot

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page/app.css": ("app.css", "text/css; charset=utf-8"),
    "page/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "page/conversation.js": ("conversation.js", "text/javascript; charset=utf-8"),
    "page/screen.js": ("screen.js", "text/javascript; charset=utf-8"),
    "page/api.js": ("api.js", "text/javascript; charset=utf-8"),
    "page/icon.svg": ("icon.svg", "image/svg+xml"),
}


def router(runtime: Runtime, *, authorize: Authorize | None = None) -> APIRouter:
    """The session routes (HTTP, server-sent events, WebSocket) for a FastAPI application.

        app = FastAPI(lifespan=runtime.lifespan)
        app.include_router(turnwise.router(runtime), prefix="/ai")

    `authorize(connection, session_id)` returns whether this connection may use that session
    (`session_id` None: may make one); where it is given, tokens and API keys are not asked for.
    """
    routes = APIRouter()
    _add_channels(routes, runtime, authorize)
    return routes


def _add_channels(routes: APIRouter, runtime: Runtime, authorize: Authorize | None) -> HTTPChannel:
    settings = runtime.settings
    access = Access(lambda: runtime.gateway, settings, authorize)
    WebSocketChannel(routes, lambda: runtime.gateway, access, settings)
    return HTTPChannel(routes, lambda: runtime.gateway, access, settings)


class Application(FastAPI):
    """FastAPI with a short cut for the busiest request, unless somebody added middleware."""

    channel: HTTPChannel

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        return stack if self.user_middleware else ShortCut(stack, self.channel)


def create_app(runtime: Runtime, *, ideas: Sequence[str] = ()) -> FastAPI:
    """The whole server: session routes, chat page at `/`, health and metrics.

    `ideas` are what the page offers to say first.
    """
    app = Application(
        title="Turnwise",
        summary="Stateful conversations: sessions, turns in order, replies that can be resumed.",
        lifespan=runtime.lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.channel = _add_channels(app.router, runtime, None)
    app.include_router(_operations(runtime))
    app.include_router(_page(runtime, ideas))
    app.add_exception_handler(HTTPException, _as_problem)
    app.add_exception_handler(TurnwiseError, _as_problem)
    return app


async def _as_problem(_request: Request, error: Exception) -> Response:
    return as_problem(error)


def _operations(runtime: Runtime) -> APIRouter:
    """Health and metrics."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/health/live", responses={200: {"description": "The process runs."}})
    async def live() -> dict[str, str]:
        """Whether the process runs."""
        return {"status": "ok"}

    @routes.get("/health/ready", responses={503: {"description": "Not now."}})
    async def ready() -> Response:
        """Whether the store answers and this process takes work."""
        status, why = 200, "ok"
        try:
            async with asyncio.timeout(2.0):
                await runtime.gateway.ping()
        except (TurnwiseError, TimeoutError):
            status, why = 503, "store_unavailable"
        if runtime.stopping:
            status, why = 503, "stopping"
        return JSON(orjson.dumps({"status": why}), status)

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(telemetry.exposition(), media_type=telemetry.CONTENT_TYPE)

    return routes


class Texts(BaseModel):
    """Markdown to be shown."""

    texts: list[str] = Field(max_length=100)


def _page(runtime: Runtime, ideas: Sequence[str]) -> APIRouter:
    """The chat page and what it needs: its files, and Markdown as safe HTML."""
    routes = APIRouter(route_class=ProblemRoute, include_in_schema=False)
    folder = resources.files(__package__).joinpath("page")
    for path, (name, kind) in PAGE_FILES.items():
        content = folder.joinpath(name).read_bytes()
        routes.add_api_route(f"/{path}", _file(content, kind), methods=["GET"])

    @routes.get("/page/about")
    async def about() -> Response:
        return JSON(orjson.dumps({"ideas": list(ideas)}))

    @routes.post("/page/render")
    async def render(request: Request) -> Response:
        token = bearer(request)
        if token is None:
            raise Unauthorized()
        runtime.gateway.grant(token)
        settings = runtime.settings
        body = await read_body(
            request,
            Texts,
            runtime.gateway.hub.alarms,
            limit=settings.max_body,
            timeout=settings.body_timeout,
        )
        html = await asyncio.to_thread(lambda: [to_html(text) for text in body.texts])
        return JSON(orjson.dumps({"html": html}))

    return routes


def _file(content: bytes, kind: str) -> Any:
    headers = {
        "ETag": f'"{sha256(content).hexdigest()[:16]}"',
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }

    async def file(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return file


def from_environment() -> FastAPI:
    """The application that `turnwise serve` runs in each of its processes."""
    settings = Settings()
    if "TURNWISE_PARENT" in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    telemetry.setup_logging(settings.log_level)
    work = os.environ.get("TURNWISE_WORK", "1") != "0"
    named = os.environ.get("TURNWISE_BOT")
    runtime = Runtime(load_bot(named), settings=settings, worker=work)
    return create_app(runtime, ideas=() if named or has_model() else IDEAS)


def _end_with_parent() -> None:
    """A server process whose supervisor was killed must not hold on to the port."""
    while os.getppid() == int(os.environ["TURNWISE_PARENT"]):
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
