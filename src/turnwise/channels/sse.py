"""Server-sent events: a reader's events as one long response."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from turnwise.hub import Reader

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""


class EventStream(Response):
    """Streams `reader` until its turn ends, it is closed, or the token `expires`.

    A client that accepts no bytes for `send_timeout` seconds is dropped; it can resume with
    Last-Event-ID.
    """

    media_type = "text/event-stream"

    def __init__(
        self, reader: Reader, *, send_timeout: float, expires: float | None = None, **more: Any
    ) -> None:
        super().__init__(None, **more)
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"
        del self.headers["content-length"]
        self._reader = reader
        self._send_timeout = send_timeout
        self._expires = expires

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.get_running_loop().create_task(self._until_disconnect(receive))
        try:
            await self._stream(send)
        except TimeoutError:
            return  # it does not read; uvicorn closes the connection
        finally:
            self._reader.close()
            watcher.cancel()

    async def _until_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._reader.shut("left")

    async def _stream(self, send: Send) -> None:
        head = {"type": "http.response.start", "status": self.status_code}
        await send({**head, "headers": self.raw_headers})
        await self._send(send, b": turnwise\nretry: 1000\n\n")
        reader = self._reader
        while not (reader.ended or reader.closed):
            found = await reader.read(self._patience())
            if found:
                await self._send(send, b"".join([event.sse for event in found]))
            elif not (reader.ended or reader.closed):
                if self._expires is not None and self._expires <= time.time():
                    break
                await self._send(send, b": still here\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _patience(self) -> float:
        if self._expires is None:
            return HEARTBEAT
        return max(0.0, min(HEARTBEAT, self._expires - time.time()))

    async def _send(self, send: Send, body: bytes) -> None:
        async with asyncio.timeout(self._send_timeout):
            await send({"type": "http.response.body", "body": body, "more_body": True})
