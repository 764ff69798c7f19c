"""Following: a turn's fold as server-sent events.

A stream ends cleanly behind the fold's last chunk only. If this process stops first, the session is
deleted or the token expires, the connection is broken, because clients take a clean end in the
middle of an answer for the whole answer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from turnwise.channels.sse import EventStream
from turnwise.conversation import TurnRecord, events
from turnwise.conversation.events import Event
from turnwise.errors import TurnwiseError
from turnwise.gateway.gateway import Gateway
from turnwise.gateway.reader import Closed, Reader
from turnwise.protocols.fold import Fold

log = logging.getLogger("turnwise.http")

HEARTBEAT = 10.0
"""Seconds of silence after which a comment is sent: a client that measures the rhythm of comments
connects anew after three times that, or 30 s."""


class UnsafeStream(TurnwiseError):
    """A stream would end cleanly in mid-answer here if the server stops: the application has a
    `@app.middleware("http")` (BaseHTTPMiddleware). Write it as a pure ASGI middleware."""

    code = "unsafe_stream"
    status = 501


class Chunk(NamedTuple):
    """A chunk of a fold, as it is sent."""

    sse: bytes


class Following:
    """The chunks of a turn's fold behind the first `skip`, while the turn is answered.

    A turn whose message another turn answers as well goes on with that one's events.
    """

    def __init__(
        self,
        gateway: Gateway,
        record: TurnRecord,
        fold: Fold,
        *,
        skip: int = 0,
        generation: int | None = None,
        reader: Reader | None = None,
    ) -> None:
        self._gateway = gateway
        self._record = record
        self._fold = fold
        self._skip = skip
        self._generation = generation
        self._reader = reader if reader is not None else self._join(record)
        self.closed: Closed | None = None

    def _join(self, record: TurnRecord) -> Reader:
        return self._gateway.follow(
            record.session, record.first_event - 1, turn=record.n, generation=self._generation
        )

    @property
    def ended(self) -> bool:
        """Whether the last chunk was read."""
        return self._fold.done

    def shut(self, why: Closed) -> None:
        """End it early."""
        self.closed = self.closed or why
        self._reader.shut(why)

    def nudge(self) -> None:
        """Let a waiting `read` return."""
        self._reader.nudge()

    def close(self) -> None:
        """Leave the hub."""
        self._reader.close()

    async def read(self) -> list[Chunk]:
        """The next chunks, or none after a nudge or at the end."""
        while not (self.closed or self._fold.done):
            found = await self._reader.read()
            self.closed = self.closed or self._reader.closed
            if not found and self._reader.ended:  # its last event was never written
                return [Chunk(chunk) for chunk in await self._recalled()]
            chunks = [chunk for event in found for chunk in await self._chunks(event)]
            skipped = min(self._skip, len(chunks))
            self._skip -= skipped
            if chunks[skipped:] or not found:
                return [Chunk(chunk) for chunk in chunks[skipped:]]
        return []

    async def _chunks(self, event: Event) -> list[bytes]:
        if self.closed:
            return []
        if event.type == events.GAP:
            return await self._recalled()
        if event.type == events.MERGED:
            into = event.json()["merged_into"]
            self._reader.close()
            self._record = await self._gateway.turn(self._record.session, into)
            self._reader = self._join(self._record)
            return []
        if event.type == events.QUEUED and self._fold.begun:
            return []  # of the turn that answers this one's message as well
        withdrawn = event.type == events.CANCELLED and self._fold.status == "queued"
        if event.type == events.STARTED or withdrawn:
            try:
                await self._fold.prepare(self._record.n)
            except TurnwiseError:  # the client comes back
                self.shut("gone")
                return []
        return list(self._fold.feed(event))

    async def _recalled(self) -> list[bytes]:
        """What is left to say when the log cannot be continued: the whole turn, of which the end is
        never hidden, or nothing, and then the connection breaks."""
        record = await self._gateway.turn(self._record.session, self._record.n)
        while record.merged_into is not None:
            record = await self._gateway.turn(record.session, record.merged_into)
        if record.open or self._fold.begun:
            self.shut("gone")
            return []
        await self._fold.prepare(record.n)
        whole = list(self._fold.recall(record))
        skip, self._skip = self._skip, 0
        return whole[skip:] + list(self._fold.conclude(record))


class FoldStream(EventStream):
    """Streams the chunks of a fold; see this module."""

    heartbeat = HEARTBEAT
    may_end = False

    def __init__(
        self,
        following: Following,
        *,
        send_timeout: float,
        expires: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(following, send_timeout=send_timeout, expires=expires, headers=headers)
        self.following = following
        self.headers["Cache-Control"] = "no-store, no-transform"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream(receive, send)  # here, so that every middleware's headers come with it


def check_stream(request: Request) -> None:
    """Raises UnsafeStream where a stream could not be broken off."""
    if _ends_cleanly(request.scope, request.receive):
        error = UnsafeStream()
        log.error(error.message)
        raise error


def _ends_cleanly(scope: Scope, receive: Receive) -> bool:
    """Whether a middleware would make a clean end of a broken connection."""
    if type(getattr(receive, "__self__", None)).__module__ == BaseHTTPMiddleware.__module__:
        return True
    layer: Any = getattr(scope.get("app"), "middleware_stack", None)
    while layer is not None:
        if isinstance(layer, BaseHTTPMiddleware):
            return True
        layer = getattr(layer, "app", None)
    return False
