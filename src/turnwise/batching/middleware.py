"""Middleware that answers several HTTP requests with one batched call.

    app.add_middleware(
        BatchMiddleware, path="/upper", item=lambda request: request.query_params["x"],
        batcher=Batcher(upper, max_size=8, max_wait=0.01),
    )

    @app.get("/upper")
    async def route(request: Request): return {"text": request.state.batched}

The item of each request to `path` goes through the batcher, and its result is in the request's
scope when the endpoint starts. Failures are answered before that, as problems without the
exception's words: 422 if the request has no item, 429 if there is no room (`max_queue`), 503 if the
batch took too long or the batcher is closed, 500 for any other. With `errors=True` the endpoint
gets the exception of the batch instead, as its result.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise.batching.batcher import Batcher
from turnwise.batching.errors import (
    BatcherClosed,
    BatcherFull,
    BatchTimeout,
    DeadlinePassed,
    ProcessDied,
    TooCostly,
)

log = logging.getLogger("turnwise.batching")


class BatchMiddleware:
    """ASGI middleware; see the module. `item(request)` may be async, to read a body."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        path: str,
        item: Callable[[Request], Any | Awaitable[Any]],
        batcher: Batcher[Any, Any],
        errors: bool = False,
    ) -> None:
        self._app = app
        self._path = path.rstrip("/")
        self._item = item
        self._batcher = batcher
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _path_of(scope) != self._path:
            await self._app(scope, receive, send)
            return
        heard: list[Message] = []

        async def listen() -> Message:
            message = await receive()
            heard.append(message)
            return message

        async def again() -> Message:
            """Replays to the endpoint the body that was read to find the item."""
            return heard.pop(0) if heard else await receive()

        try:
            item = self._item(Request(scope, listen))
            item = await item if inspect.isawaitable(item) else item
        except ClientDisconnect:
            return
        except HTTPException as error:
            return await _problem(error.status_code, "rejected", error.detail)(scope, again, send)
        except Exception:
            log.info("a request to %s has no item", self._path, exc_info=True)
            missing = _problem(422, "invalid", "The request has no item that can be used.")
            return await missing(scope, again, send)
        try:
            result: Any = await self._batcher.submit(item)
        except Exception as error:
            if not self._errors or isinstance(error, BatcherFull):
                return await _failed(error)(scope, again, send)
            result = error
        scope.setdefault("state", {})["batched"] = result
        await self._app(scope, again, send)


def _path_of(scope: Scope) -> str:
    """The path in the application that the middleware is of, wherever that is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root).rstrip("/") if path.startswith(f"{root}/") else path.rstrip("/")


def _failed(error: Exception) -> JSONResponse:
    """What the client is answered when the batch has failed."""
    if isinstance(error, BatcherFull):
        wait = {"Retry-After": str(max(1, round(error.retry_after)))}
        return _problem(429, error.code, error.message, retryable=True, headers=wait)
    if isinstance(error, BatchTimeout | BatcherClosed | DeadlinePassed | ProcessDied):
        return _problem(503, error.code, error.message, retryable=True)
    if isinstance(error, TooCostly):
        return _problem(422, error.code, error.message)
    log.error("a batched call failed", exc_info=error)
    return _problem(500, "batch_failed", "Something went wrong on the server.", retryable=True)


def _problem(status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    headers, retryable = more.get("headers"), more.get("retryable", False)
    body = {"status": status, "code": code, "detail": detail, "retryable": retryable}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
