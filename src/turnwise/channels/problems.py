"""Errors as RFC 9457 problems, with a `code` for programs and `retryable`."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from turnwise.errors import Damaged, StoreUnavailable, TurnwiseError

log = logging.getLogger("turnwise.http")

TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    408: "Request timeout",
    409: "No longer possible",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not valid",
    429: "Too many requests",
    500: "Internal error",
    501: "Not available here",
    502: "Bad gateway",
    503: "Unavailable",
    504: "Gateway timeout",
}


def problem(
    status: int, code: str, detail: str, *, retryable: bool = False, retry_after: float = 0
) -> Response:
    """An RFC 9457 response."""
    body = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": retryable,
    }
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if retry_after:
        headers["Retry-After"] = str(math.ceil(retry_after))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        orjson.dumps(body), status, headers=headers, media_type="application/problem+json"
    )


def as_problem(error: Exception) -> Response:
    """The problem for an exception; an unexpected exception reveals no details to the client."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return problem(422, "invalid", f"{where}: {first['msg']}")
    if isinstance(error, HTTPException):
        found = problem(error.status_code, "rejected", str(error.detail))
        for name, value in (error.headers or {}).items():
            found.headers[name] = value
        return found
    if isinstance(error, StoreUnavailable):
        log.warning("store unavailable: %s", error)
    if isinstance(error, TurnwiseError) and (error.status != 500 or isinstance(error, Damaged)):
        wait = getattr(error, "retry_after", None) or 0
        detail = _for_strangers(error)
        return problem(
            error.status, error.code, detail, retryable=error.retryable, retry_after=wait
        )
    log.error("unexpected error", exc_info=error)
    return problem(500, "internal", "Something went wrong on the server.", retryable=True)


def _for_strangers(error: TurnwiseError) -> str:
    """The error's message; for a store only that it is unavailable: its address is private."""
    if isinstance(error, StoreUnavailable) and not error.perhaps_done:
        return StoreUnavailable().message
    return error.message


class ProblemRoute(APIRoute):
    """A route whose own errors become problems. Exceptions that a host application's dependencies
    raise reach the host's own handlers unchanged."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match; an escaped slash (%2F) is a part of its segment, because ids may have slashes."""
        raw: bytes = scope.get("raw_path") or b""
        if b"%2f" not in raw.lower():
            return super().matches(scope)
        path = unquote(_ESCAPED.sub(_SLASH, raw.decode("latin-1")))
        match, found = super().matches({**scope, "path": path})
        if "path_params" in found:
            values = found["path_params"].items()
            found["path_params"] = {name: _whole(value) for name, value in values}
        return match, found

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        return answering(super().get_route_handler(), OURS)


_ESCAPED, _SLASH = re.compile("%2f", re.I), "\udc2f"
"""An escaped slash, and what stands for it in the meantime: no text that is unescaped has that."""


def _whole(value: Any) -> Any:
    return value.replace(_SLASH, "/") if isinstance(value, str) else value


OURS = (TurnwiseError, RequestValidationError)
"""Exceptions that our own code raises for a client's mistake or a store's failure."""


def answering(
    handle: Callable[[Request], Awaitable[Response]],
    errors: type[Exception] | tuple[type[Exception], ...],
) -> Callable[[Request], Awaitable[Response]]:
    """`handle`, which answers with a problem if it raises one of `errors`."""

    async def handler(request: Request) -> Response:
        try:
            return await handle(request)
        except ClientDisconnect:
            return Response(status_code=499)
        except errors as error:
            return as_problem(error)

    return handler
