"""The fast path: the most frequent request, POST .../turns with a plain body, read by hand.

It only chooses the way: whatever is not plain goes the whole way, with the body that was read
already, and both ways end in the same `HTTPChannel.take`. So both must give the same answers, which
one table of requests tests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwise.channels.bodies import in_time
from turnwise.channels.http import HTTPChannel
from turnwise.channels.parameters import patience_of
from turnwise.channels.problems import as_problem
from turnwise.channels.routes import path_of
from turnwise.channels.sse import LATER, EventStream

_TURNS = re.compile(r"/sessions/([^/]+)/turns")
_ONCE = frozenset(
    (b"authorization", b"content-type", b"content-length", b"prefer", b"idempotency-key")
)
_NOT_PLAIN = frozenset((b"transfer-encoding", b"expect", b"content-encoding", b"x-turnwise-owner"))
_PLAIN_BODY = {"text"}


class FastPath:
    """Answers plain submissions before the framework; `app` answers all other requests. If `app`
    responds with an event stream, the stream is sent here, outside the framework.

    The endpoint is also a route, so that OpenAPI shows it and a host application that includes the
    router can use it with the host's own dependencies.
    """

    def __init__(self, app: ASGIApp, channel: HTTPChannel) -> None:
        self.app = app
        """The wrapped application: tools that look for a middleware follow the `app` attributes."""
        self._channel = channel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if LATER in scope:  # the one before the framework has looked at it already
            await self.app(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "POST":
            found = _TURNS.fullmatch(scope["path"])
            headers = _plain_headers(scope) if found else None
            if found and headers is not None and self._channel.is_open(headers):
                try:
                    message = await self._first(receive)
                    text = _plain_text(message)
                    if text is not None:
                        await self._answer(found[1], text, headers, scope, receive, send)
                        return
                except Exception as error:
                    await as_problem(error)(scope, receive, send)
                    return
                receive = _again(message, receive)
        later: list[EventStream] = []
        scope[LATER] = later
        await self.app(scope, receive, send)
        for stream in later:
            await stream.stream(receive, send)

    async def _first(self, receive: Receive) -> Message:
        """The first part of the body. Raises SlowBody, StoreUnavailable."""
        settings = self._channel.settings
        with in_time(self._channel.alarms, settings.body_timeout):
            return await receive()

    async def _answer(
        self,
        session_id: str,
        text: str,
        headers: Mapping[bytes, bytes],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        principal = self._channel.principal(session_id, headers[b"authorization"])
        key, prefer = headers.get(b"idempotency-key"), headers.get(b"prefer")
        message: dict[str, Any] = {"key": key.decode("latin-1") if key is not None else None}
        patience = patience_of(prefer.decode("latin-1")) if prefer is not None else None
        response = await self._channel.take(
            principal, session_id, text, message, path_of(scope), patience
        )
        await response(scope, receive, send)


def _plain_headers(scope: Scope) -> dict[bytes, bytes] | None:
    """The headers that matter, or None if the request is not plain: one of them twice, a stream is
    wanted, another type or encoding of the body."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _ONCE:
            if name in headers:
                return None
            headers[name] = value
        elif name in _NOT_PLAIN or (name == b"accept" and b"event-stream" in value):
            return None
    if headers.get(b"content-type") != b"application/json" or b"content-length" not in headers:
        return None
    return headers


def _plain_text(message: Message) -> str | None:
    """The text of a body that arrived whole and holds nothing else."""
    if message["type"] != "http.request" or message.get("more_body", False):
        return None
    try:
        content = orjson.loads(message.get("body", b""))
    except ValueError:
        return None
    if type(content) is not dict or content.keys() != _PLAIN_BODY:
        return None
    text = content["text"]
    return text if type(text) is str else None


def _again(message: Message, receive: Receive) -> Receive:
    """A `receive` that first gives what was received already."""
    waiting = [message]

    async def given() -> Message:
        return waiting.pop() if waiting else await receive()

    return given
