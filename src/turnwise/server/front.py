"""The front: HTTP connections that `turnwise serve` accepts, with limits on a request's head.

The server's own parser accepts header lines without end, and a connection that never sends a
request would stay open forever. Here the size and the time of a request's head are limited.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 65_536
"""Maximum bytes until the head of a request is complete."""
HEAD_PATIENCE = 20.0
"""Seconds within which the head of a request must be complete, counted from its first byte; for
the first request from the start of the connection."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Front(HttpToolsProtocol):
    """One HTTP connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head = True
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._head_came()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head:
            return
        self._size += len(data)
        if self._size > MAX_HEAD:
            self._refuse(_TOO_LARGE)
        elif self._timer is None:
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._size = True, 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False
        self._head_came()

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_PATIENCE, self._refuse, _TOO_SLOW)

    def _head_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, answer: bytes) -> None:
        self._head_came()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
