"""The ASGI application: the session routes, the chat page, health and metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from turnwise import telemetry
from turnwise.channels.access import Access, Authorize
from turnwise.channels.bodies import JSON
from turnwise.channels.fast_path import FastPath
from turnwise.channels.http import HTTPChannel
from turnwise.channels.operators import IsOperator, OperatorAccess, add_overview
from turnwise.channels.people import PeopleChannel
from turnwise.channels.problems import as_problem
from turnwise.channels.uploads import UploadChannel
from turnwise.channels.websocket import WebSocketChannel
from turnwise.errors import TurnwiseError
from turnwise.protocols.mounted import EXPOSED, DoorsCORS, mount
from turnwise.runtime import Runtime
from turnwise.server.admin_page import admin_page
from turnwise.server.api_page import api_page
from turnwise.server.chat_page import READ, Brand, chat_page, page_headers
from turnwise.urls import Origin, as_text

log = logging.getLogger("turnwise.http")


def router(runtime: Runtime, *, authorize: Authorize | None = None) -> APIRouter:
    """The session routes (HTTP, server-sent events, WebSocket) for a FastAPI application.

        app = FastAPI(lifespan=runtime.lifespan)
        app.include_router(turnwise.router(runtime), prefix="/ai")

    `authorize(connection, session_id)` returns whether this connection may use that session
    (`session_id` None: may create one); a text is an owner, who may use the owner's sessions, list
    them and create others. If it is given, tokens and API keys are not required.
    """
    routes = APIRouter()
    _add_channels(routes, runtime, authorize)
    return routes


def page(
    runtime: Runtime,
    *,
    authorize: Authorize | None = None,
    title: str = "Turnwise",
    greeting: str = "",
    accent: str = "",
    logo: str | Path | None = None,
    ideas: Sequence[str] = (),
    texts: Mapping[str, Mapping[str, str]] | None = None,
    login: str = "",
) -> APIRouter:
    """The session routes and the chat page, for a FastAPI application, with your own login:

        app.include_router(turnwise.page(runtime, authorize=who, title="Help"), prefix="/chat")

    `authorize` as in `router`; if it names owners, the list of conversations is the owner's, on
    every device. `login` is the address of your login page, to which the page leads who is not
    logged in. For the others see `Brand`. Include it with a prefix. Raises ConfigurationError.
    """
    where = None if authorize is None else login
    brand = Brand(title, greeting, accent, logo, ideas, texts or {}, where)
    routes = APIRouter()
    channel = _add_channels(routes, runtime, authorize)
    routes.add_api_route("", _with_slash, methods=["GET"], include_in_schema=False)
    routes.include_router(chat_page(runtime, channel.access, brand))
    return routes


def admin(runtime: Runtime, *, authorize: IsOperator | None = None) -> APIRouter:
    """The operator's view, for a FastAPI application, with your own rule:

        app.include_router(turnwise.admin(runtime, authorize=is_staff), prefix="/admin")

    `authorize(connection)` returns whether this connection is an operator's; without it one of the
    keys in TURNWISE_ADMIN_KEYS is needed. Operators see all sessions, and stop, empty and delete
    them. Include it with a prefix. Raises ConfigurationError.
    """
    access = OperatorAccess(lambda: runtime.gateway, runtime.settings, authorize)
    routes = APIRouter(include_in_schema=False)
    routes.add_api_route("", _with_slash, methods=READ)
    _add_routes(routes, runtime, access)
    add_overview(routes, access, lambda: runtime.overview)
    routes.include_router(admin_page())
    return routes


async def _with_slash(request: Request) -> Response:
    """What the page is made of is beside it, so its address ends with a slash."""
    last = quote(request.url.path.rpartition("/")[2])
    return Response(status_code=307, headers={"Location": f"{last}/"})


def _add_channels(routes: APIRouter, runtime: Runtime, authorize: Authorize | None) -> HTTPChannel:
    access = Access(lambda: runtime.gateway, runtime.settings, authorize, runtime.rates)
    return _add_routes(routes, runtime, access)


def _add_routes(routes: APIRouter, runtime: Runtime, access: Access) -> HTTPChannel:
    """The session routes, open to those whom `access` lets in."""
    settings = runtime.settings
    WebSocketChannel(routes, lambda: runtime.gateway, access, settings)
    channel = HTTPChannel(routes, lambda: runtime.gateway, access, settings)
    PeopleChannel(routes, lambda: runtime.gateway, access, settings)
    UploadChannel(routes, lambda: runtime.gateway, access, settings)
    return channel


def install(app: FastAPI) -> None:
    """Answer Turnwise's errors in `app` as its own routes do: as problems with a status, a code
    and `retryable` (RFC 9457). The application's own errors are not changed.

        app = FastAPI(lifespan=runtime.lifespan)
        turnwise.install(app)

        @app.post("/chat")
        async def chat(user: str, text: str) -> str:
            return (await runtime.ask(f"user {user}", text, timeout=60)).text
    """
    app.add_exception_handler(TurnwiseError, _as_problem)


class Application(FastAPI):
    """FastAPI with a shortcut for the most frequent request, unless middleware was added, and with
    CORS for allowed origins on every route."""

    channel: HTTPChannel
    origins: frozenset[Origin] = frozenset()
    _door: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        if self._door is None:
            self._door = self._outermost()
        await self._door(scope, receive, send)

    def _outermost(self) -> ASGIApp:
        """Where requests come in: at the framework, or before it if nobody observes requests."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        stack, framework = self.middleware_stack, super().__call__
        plain = isinstance(stack, ServerErrorMiddleware) and isinstance(stack.app, FastPath)
        if not plain or self.root_path or telemetry.traced():
            return framework
        return FastPath(framework, self.channel)

    def build_middleware_stack(self) -> ASGIApp:
        outermost = super().build_middleware_stack()
        # Observability tools expect the framework's own middleware outermost: ours is inside.
        assert isinstance(outermost, ServerErrorMiddleware)
        if self.channel.access.is_open:
            outermost.app = DoorsCORS(outermost.app)
        if not self.user_middleware:
            outermost.app = FastPath(outermost.app, self.channel)
        if self.origins:
            outermost.app = CORSMiddleware(
                outermost.app,
                allow_origins=[as_text(one) for one in self.origins],
                allow_methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
                allow_headers=["*"],  # clients send many of their own, and none is a credential
                expose_headers=EXPOSED,
                max_age=3600,
            )
        return outermost


def create_app(runtime: Runtime, *, ideas: Sequence[str] = ()) -> FastAPI:
    """The whole server: session routes, chat page at `/`, health and metrics.

    `ideas` are the first messages that the page suggests; the rest of its looks are settings.
    """
    settings = runtime.settings
    brand = Brand(settings.title, settings.greeting, settings.accent, settings.logo or None, ideas)
    app = Application(
        title="Turnwise",
        description=(
            "Create a session and send its token as `Authorization: Bearer <token>` with every "
            "request about that session. Events also come over a WebSocket, "
            "`/sessions/{session_id}/ws`. Errors are problems (RFC 9457) with a `code` and "
            "`retryable`."
        ),
        summary="Stateful conversations: sessions, turns in order, replies that can be resumed.",
        lifespan=runtime.lifespan,
        docs_url=None,  # its page loads external scripts: ours is api_page.py
        redoc_url=None,
        redirect_slashes=False,  # it would redirect to any host that the Host header names
    )
    app.channel = _add_channels(app.router, runtime, None)
    app.origins = runtime.settings.origins()
    mount(app, runtime)
    app.include_router(_operations(runtime))
    if runtime.settings.operators():
        app.include_router(admin(runtime), prefix="/admin")
    app.include_router(chat_page(runtime, app.channel.access, brand))
    app.add_api_route("/docs", _docs, include_in_schema=False, methods=READ)
    app.add_exception_handler(HTTPException, _as_problem)
    app.add_exception_handler(Exception, _as_problem)
    install(app)
    return app


async def _docs(request: Request) -> Response:
    """The HTTP interface as a readable page."""
    root = quote(request.scope.get("root_path", "").rstrip("/"))
    return Response(
        api_page(request.app.openapi(), root), headers=page_headers(), media_type="text/html"
    )


async def _as_problem(_request: Request, error: Exception) -> Response:
    return as_problem(error)


def _operations(runtime: Runtime) -> APIRouter:
    """Health and metrics."""
    routes = APIRouter(tags=["operations"])

    readiness = Readiness(runtime)

    async def live() -> dict[str, str]:
        """Report that the process runs."""
        return {"status": "ok"}

    async def ready() -> Response:
        """Report whether the store can write and this process accepts messages."""
        why = await readiness.look()
        return JSON(orjson.dumps({"status": why}), 200 if why == "ok" else 503)

    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(telemetry.exposition(), media_type=telemetry.CONTENT_TYPE)

    runs = {200: {"description": "The process runs."}}
    for path, endpoint, more in (
        ("/health/live", live, {"responses": runs}),
        ("/health/ready", ready, {"responses": {503: {"description": "Not now."}}}),
        ("/metrics", metrics, {"response_class": Response}),
    ):
        routes.add_api_route(path, endpoint, methods=["GET"], **more)
        routes.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return routes


class Readiness:
    """The answer of `/health/ready`. It tests a write to the store, at most once a second."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._looked = -1.0
        self._found = "ok"
        self._looking = asyncio.Lock()

    async def look(self) -> str:
        """ "ok", or why this process should get no requests now."""
        if self._runtime.stopping:
            return "stopping"
        async with self._looking:
            if time.monotonic() - self._looked >= 1.0:
                self._found = await self._try()
                self._looked = time.monotonic()
            return self._found

    async def _try(self) -> str:
        try:
            async with asyncio.timeout(2.0):
                await self._runtime.gateway.ping()
        except (TurnwiseError, TimeoutError) as error:
            log.warning("not ready: %s", error or "the store does not answer in time")
            return "store_unavailable"
        return "ok"
