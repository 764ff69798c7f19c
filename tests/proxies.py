"""A proxy before a store that loses what it should carry, or is slow."""

from __future__ import annotations

import asyncio
from typing import Any


class Cutter:
    """Between clients and the server on `port`.

    The next `cut` requests reach the server and their answers are lost, with the line, after
    `pass_on` others; if `only` is set, those whose answer is just this. While
    `deaf`, nothing that channels say comes through. What the server says takes `delay` seconds.
    """

    def __init__(self, port: int, *, delay: float = 0.0) -> None:
        self._port = port
        self.delay = delay
        self.halves: set[_Half] = set()
        self.cut = 0
        self.pass_on = 0
        self.only = b""
        self.deaf = False

    async def __aenter__(self) -> Cutter:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Half(self), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for half in self.halves:
            half.end()
        await asyncio.sleep(0)

    async def connect(self, near: _Half) -> asyncio.BaseTransport:
        loop = asyncio.get_running_loop()
        far, _ = await loop.create_connection(lambda: _Half(self, near), "127.0.0.1", self._port)
        return far


class _Half(asyncio.Protocol):
    """One side of a line through the proxy: the client's, or with `near` the server's."""

    def __init__(self, cutter: Cutter, near: _Half | None = None) -> None:
        self._cutter = cutter
        self._near = near
        self._early = b""
        self._connecting: asyncio.Future[asyncio.BaseTransport] | None = None
        self.transport: Any = None
        self.other: Any = None if near is None else near.transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._cutter.halves.add(self)
        if self._near is None:
            self._connecting = asyncio.ensure_future(self._cutter.connect(self))
            self._connecting.add_done_callback(self._connected)

    def _connected(self, connecting: asyncio.Future[Any]) -> None:
        if connecting.cancelled():
            return
        self.other = connecting.result()
        if self.transport.is_closing():  # the client did not wait so long
            self.other.close()
        else:
            self.other.write(self._early)

    def end(self) -> None:
        self.transport.abort()
        if self._connecting is not None:
            self._connecting.cancel()

    def data_received(self, data: bytes) -> None:
        if self._near is not None and self._cutter.deaf and b"message\r\n" in data:
            return
        answers = self._near is not None and b"subscribe" not in data
        answers = answers and self._cutter.only in (b"", data)
        if answers and self._cutter.cut and self._cutter.pass_on:
            self._cutter.pass_on -= 1
            self.other.write(data)
        elif answers and self._cutter.cut:
            self._cutter.cut -= 1
            self.transport.close()
            self.other.close()
        elif self.other is None:
            self._early += data
        elif self._near is not None and self._cutter.delay:
            asyncio.get_running_loop().call_later(self._cutter.delay, self.other.write, data)
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cutter.halves.discard(self)
        if self.other is not None:
            self.other.close()
