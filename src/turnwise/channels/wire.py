"""The HTTP wire format: request bodies, problems, and the schemas that OpenAPI shows.

Errors are RFC 9457 problems with a `code` for programs and `retryable`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from turnwise.alarms import Alarms
from turnwise.conversation import Attachment
from turnwise.errors import (
    Damaged,
    Invalid,
    Rejected,
    StoreUnavailable,
    TooLarge,
    TurnwiseError,
)

log = logging.getLogger("turnwise.http")
M = TypeVar("M", bound=BaseModel)


class BadJSON(Rejected):
    """The body is not valid JSON in UTF-8."""

    code = "bad_json"


class WrongType(Rejected):
    """The body must be application/json."""

    code = "unsupported_media_type"
    status = 415


class SlowBody(Rejected):
    """The body did not arrive in time."""

    code = "body_timeout"
    status = 408
    retryable = True


# Answers


class JSON(Response):
    """JSON that is already encoded; intermediaries must never cache it."""

    def __init__(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.status_code = status
        self.background = None
        self.body = content
        self.raw_headers = [
            (b"content-length", b"%d" % len(content)),
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()),
        ]


# Shapes


class AttachmentIn(BaseModel):
    type: str = Field(min_length=1, max_length=100, examples=["image/png"])
    url: str = Field(
        min_length=1,
        max_length=2_000_000,
        pattern=r"^(https?://|data:)",
        description="An http(s) or data URL; the server never fetches it.",
    )
    name: str | None = Field(None, max_length=300)
    size: int | None = Field(None, ge=0, le=2**53, description="Bytes.")

    def plain(self) -> Attachment:
        return Attachment(self.type, self.url, self.name, self.size)


class SessionIn(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Holiday plans"}]})

    name: str | None = Field(None, max_length=200)
    metadata: dict[str, Any] | None = Field(None, description="Your own JSON, up to 16 kB.")
    ttl: float | None = Field(
        None, ge=1, le=315_360_000, description="Seconds from the last turn until it expires."
    )


class TurnIn(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "Hello!"}]})

    text: str = Field("", description="The text of the user's message.")
    role: Literal["user"] = "user"
    attachments: list[AttachmentIn] = Field(default_factory=list, max_length=20)
    metadata: dict[str, Any] = Field(default_factory=dict)


class ErrorOut(BaseModel):
    code: str = Field(examples=["timeout"])
    message: str
    retryable: bool


class MessageOut(BaseModel):
    id: str
    seq: int | None = Field(description="Position in the history; null while the turn is open.")
    turn: int
    role: Literal["user", "assistant", "system", "tool"]
    text: str
    attachments: list[AttachmentIn]
    metadata: dict[str, Any]
    created_at: str = Field(examples=["2026-01-31T12:00:00.000Z"])
    partial: bool = Field(False, description="True for the text of a cancelled reply.")
    status: Literal["completed", "failed", "cancelled"] | None = Field(
        None, description="How its turn ended; only on user messages in the history."
    )
    error: ErrorOut | None = Field(None, description="Why the turn failed.")


class ReplyOut(BaseModel):
    text: str
    messages: list[MessageOut]
    usage: dict[str, Any] | None = None


class TurnOut(BaseModel):
    session: str
    n: int
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    attempt: int
    position: int | None = Field(None, description="Unfinished turns that precede a queued one.")
    message: MessageOut | None
    reply: ReplyOut | None = None
    error: ErrorOut | None = None
    queued_at: str
    started_at: str | None
    finished_at: str | None


class SessionOut(BaseModel):
    id: str
    name: str | None
    metadata: dict[str, Any]
    created_at: str
    expires_at: str
    ttl: float
    status: Literal["idle", "queued", "running"]
    turns: int
    messages: int


class SessionCreated(SessionOut):
    token: str = Field(description="Gives access to this session only.")


class TokenOut(BaseModel):
    token: str


class MessagesOut(BaseModel):
    messages: list[MessageOut]
    has_more: bool
    open: list[TurnOut]
    cursor: int = Field(description="Follow /events `after` it: no event is missed or repeated.")


class TurnsOut(BaseModel):
    turns: list[TurnOut]
    has_more: bool


class EventsOut(BaseModel):
    events: list[dict[str, Any]]
    next: int = Field(description="The value of `after` for the next request.")


class Problem(BaseModel):
    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    retryable: bool


# Problems

TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    408: "Request timeout",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not valid",
    429: "Too many requests",
    500: "Internal error",
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

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        return answering(super().get_route_handler(), OURS)


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


# Bodies


async def read_body(
    request: Request, model: type[M], alarms: Alarms, *, limit: int, timeout: float
) -> M:
    """The request's JSON body: at most `limit` bytes, received within `timeout` seconds.

    Raises TooLarge, WrongType, BadJSON, SlowBody, StoreUnavailable, Invalid. An empty body counts
    as an empty object.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"A body has at most {limit} bytes.")
    body = bytearray()
    with _in_time(alarms, timeout):
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise TooLarge(f"A body has at most {limit} bytes.")
    if not body:
        return validated(model, {})
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise WrongType()
    try:
        content = orjson.loads(bytes(body))
    except orjson.JSONDecodeError as error:
        raise BadJSON(f"The body is not valid JSON: {error.msg}.") from None
    if not isinstance(content, dict):
        raise Invalid("The body must be a JSON object.")
    return validated(model, content)


@contextmanager
def _in_time(alarms: Alarms, seconds: float) -> Iterator[None]:
    """Raises SlowBody if the block takes longer than `seconds`, StoreUnavailable if the process
    stops meanwhile: another process may accept the request."""
    task, late = asyncio.current_task(), False
    assert task is not None

    def ring() -> None:
        nonlocal late
        late = True
        task.cancel()

    alarm = alarms.set(seconds, ring)
    try:
        yield
    except asyncio.CancelledError:
        if not late or task.uncancel():
            raise
        if alarms.stopping:
            raise StoreUnavailable("This process is stopping: try again.") from None
        raise SlowBody() from None
    finally:
        alarms.cancel(alarm)


def validated(model: type[M], content: dict[str, Any]) -> M:
    """`content` as a `model`. Raises Invalid, which names the first invalid field."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(f"{where}: {first['msg']}") from None


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI description of a body that `read_body` reads."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": _inlined(schema, definitions)}},
        }
    }


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    return schema
