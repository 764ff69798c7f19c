"""Server-sent events: a reader's events as one long response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from turnwise.errors import Damaged
from turnwise.gateway.reader import Closed

CHUNK = 65_536
"""Bytes sent at once."""
HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""


LATER = "turnwise.later"
"""The key in a request's scope under which a stream is passed to the outer application, which
sends it: the framework's stack frames would take half of the memory of an idle stream."""


class Sendable(Protocol):
    """What is sent as one server-sent event, or several."""

    @property
    def sse(self) -> bytes: ...


class Source(Protocol):
    """Where a stream comes from: a Reader, or what reads one."""

    @property
    def ended(self) -> bool: ...

    @property
    def closed(self) -> Closed | None: ...

    async def read(self) -> Sequence[Sendable]:
        """What comes next; nothing after a nudge, or at the end."""

    def shut(self, why: Closed) -> None:
        """End it early."""

    def nudge(self) -> None:
        """Let a waiting `read` return."""

    def close(self) -> None:
        """Leave the hub."""


class EventStream(Response):
    """Streams `reader` until its turn ends, it is closed, or the token `expires`.

    A client that accepts no bytes for `send_timeout` seconds is disconnected; it can resume with
    Last-Event-ID.
    """

    media_type = "text/event-stream"
    heartbeat = HEARTBEAT
    may_end = True
    """Whether a stream may end cleanly before its turn: our own clients know its last event."""

    def __init__(
        self, reader: Source, *, send_timeout: float, expires: float | None = None, **more: Any
    ) -> None:
        super().__init__(None, **more)
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"
        self.headers["X-Content-Type-Options"] = "nosniff"
        del self.headers["content-length"]
        self._reader = reader
        self._send_timeout = send_timeout
        self._expires = expires

    def __del__(self) -> None:
        # A stream that was never sent (a host's middleware raised) must not count as open.
        self._reader.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        later: list[EventStream] | None = scope.get(LATER)
        if later is not None:
            later.append(self)
            return
        await self.stream(receive, send)

    async def stream(self, receive: Receive, send: Send) -> None:
        """Send the events until there are no more."""
        loop = asyncio.get_running_loop()
        leaving = loop.create_task(self._until_disconnect(receive))
        watch = Watch(self._reader, self._send_timeout, self._expires, self.heartbeat)
        try:
            await self._stream(send, watch)
        except (TimeoutError, Damaged):
            pass  # the client does not read, or the log cannot be read: close the connection
        finally:
            watch.stop()
            self._reader.close()
            leaving.cancel()
        if self.background is not None:
            await self.background()

    async def _until_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._reader.shut("left")

    async def _stream(self, send: Send, watch: Watch) -> None:
        async def put(body: bytes, more: bool = True) -> None:
            with watch:
                await send({"type": "http.response.body", "body": body, "more_body": more})

        head = {"type": "http.response.start", "status": self.status_code}
        with watch:
            await send({**head, "headers": self.raw_headers})
        await put(b": turnwise\n\n")
        reader = self._reader
        while not (reader.ended or reader.closed):
            found = await reader.read()
            for body in _chunks(found):
                await put(body)
            if not (found or reader.ended or reader.closed):
                await put(b": still here\n\n")
        if reader.ended or self.may_end:
            await put(b"", more=False)


def _chunks(found: Sequence[Sendable]) -> Iterator[bytes]:
    """Events in chunks of about 64 kB; each is sent after the client accepted the one before."""
    body: list[bytes] = []
    size = 0
    for event in found:
        body.append(event.sse)
        size += len(event.sse)
        if size > CHUNK:
            yield b"".join(body)
            body, size = [], 0
    if body:
        yield b"".join(body)


class Watch:
    """Checks a stream every few seconds, so that sending itself has no extra cost.

    A send that hangs for `send_timeout` seconds is cancelled and raises TimeoutError; a reader
    that was silent for `heartbeat` seconds is woken; after `expires` it is closed.
    """

    def __init__(
        self,
        reader: Source,
        send_timeout: float,
        expires: float | None,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self._reader = reader
        self._heartbeat = heartbeat
        self._patience = send_timeout
        self._expires = expires
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._sending = False
        self._stuck = False
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._pause(), self._look)

    def __enter__(self) -> None:
        self._sending = True
        self._since = self._loop.time()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._sending = False
        if kind is asyncio.CancelledError and self._stuck and self._task is not None:
            self._task.uncancel()
            raise TimeoutError

    def stop(self) -> None:
        """Stop checking."""
        self._timer.cancel()

    def _pause(self) -> float:
        pause = min(self._heartbeat / 3, self._patience / 2)
        return pause if self._expires is None else min(pause, self._expires - time.time())

    def _look(self) -> None:
        self._timer = self._loop.call_later(max(0.05, self._pause()), self._look)
        if self._expires is not None and self._expires <= time.time():
            self._reader.shut("token")
        quiet = self._loop.time() - self._since
        if self._sending and quiet >= self._patience and self._task is not None:
            self._stuck = True
            self._task.cancel()
        elif not self._sending and quiet >= self._heartbeat:
            self._reader.nudge()
