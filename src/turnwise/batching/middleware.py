"""Middleware that answers several HTTP requests with one batched call.

    app.add_middleware(
        BatchMiddleware, path="/upper", item=lambda request: request.query_params["x"],
        batcher=Batcher(upper, max_size=8, max_wait=0.01),
    )

    @app.get("/upper")
    async def route(request: Request): return {"text": request.state.batched}

The item of each request to `path` goes through the batcher; its result, or its exception, is in
the request's scope when the endpoint starts. A request for which there is no room (`max_queue`) is
answered with 429.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise.batching.batcher import Batcher
from turnwise.batching.errors import BatcherFull


class BatchMiddleware:
    """ASGI middleware; see the module. `item(request)` may be async, to read a body."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        path: str,
        item: Callable[[Request], Any | Awaitable[Any]],
        batcher: Batcher[Any, Any],
    ) -> None:
        self._app = app
        self._path = path.rstrip("/")
        self._item = item
        self._batcher = batcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/") != self._path:
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
            result: Any = await self._batcher.submit(item)
        except ClientDisconnect:
            return
        except BatcherFull as full:
            await _busy(full)(scope, receive, send)
            return
        except Exception as error:
            result = error
        scope.setdefault("state", {})["batched"] = result
        await self._app(scope, again, send)


def _busy(full: BatcherFull) -> JSONResponse:
    body = {"code": full.code, "detail": full.message, "retryable": True}
    return JSONResponse(body, 429, {"Retry-After": str(max(1, round(full.retry_after)))})
