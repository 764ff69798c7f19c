"""Request bodies, read within limits, and answers that are already encoded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

from turnwise.errors import Invalid, Rejected, StoreUnavailable, TooLarge
from turnwise.timers import Alarms

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
    with in_time(alarms, timeout):
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
def in_time(alarms: Alarms, seconds: float) -> Iterator[None]:
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
