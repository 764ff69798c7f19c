"""A load generator that costs little: HTTP/1.1 over bare asyncio streams, one request at a time
on each of many connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.head = b""
        """The head of the last answer."""

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    def close(self) -> None:
        self._writer.close()

    def _send(self, method: str, path: str, body: bytes, headers: str) -> None:
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
        given = not body or "content-type:" in headers
        kind = "" if given else "content-type: application/json\r\n"
        self._writer.write(f"{head}{kind}{headers}\r\n".encode() + body)

    async def request(self, method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
        """The body of the answer; raises RuntimeError when it is no success."""
        self._send(method, path, body, headers)
        head = self.head = await self._reader.readuntil(b"\r\n\r\n")
        start = head.lower().find(b"content-length:") + 15
        if start > 15:
            content = await self._reader.readexactly(int(head[start : head.index(b"\r", start)]))
        else:
            content = b"".join([chunk async for chunk in self._chunks()])
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{head!r} {content!r}")
        return content

    async def stream(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> AsyncIterator[bytes]:
        """The chunks of a streamed answer as they arrive."""
        self._send(method, path, body, headers)
        head = self.head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{head!r}")
        async for chunk in self._chunks():
            yield chunk

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self._reader.readline(), 16)
            chunk = await self._reader.readexactly(size + 2)
            if size == 0:
                return
            yield chunk[:-2]


class Talker:
    """A Turnwise session on a connection."""

    def __init__(self, connection: Connection, session: str, token: str) -> None:
        self.connection = connection
        self.path = f"/sessions/{session}"
        self.auth = f"authorization: Bearer {token}\r\n"

    @classmethod
    async def make(cls, port: int) -> Talker:
        connection = await Connection(port).open()
        made: dict[str, Any] = json.loads(await connection.request("POST", "/sessions", b"{}"))
        return cls(connection, made["id"], made["token"])

    async def turn(self, text: str = "hello") -> int:
        """Say something and wait for the reply; returns the turn's number."""
        body = b'{"text": "%b"}' % text.encode()
        headers = f"{self.auth}prefer: wait=30\r\n"
        answer = await self.connection.request("POST", f"{self.path}/turns", body, headers)
        n, _, _ = answer.partition(b'"n":')[2].partition(b",")
        return int(n)

    async def last_event(self) -> int:
        """The number of the session's last event."""
        path = f"{self.path}/messages?limit=1"
        found = json.loads(await self.connection.request("GET", path, b"", self.auth))
        return int(found["cursor"].partition("-")[0])

    async def stream(self, text: str) -> AsyncIterator[bytes]:
        """Say something and stream the turn's events."""
        body = json.dumps({"text": text}).encode()
        headers = f"{self.auth}accept: text/event-stream\r\n"
        async for chunk in self.connection.stream("POST", f"{self.path}/turns", body, headers):
            yield chunk


async def rate(jobs: list[AsyncIterator[None]], seconds: float) -> float:
    """Steps per second of all `jobs` together, over about `seconds`."""
    done = 0
    end = time.perf_counter() + seconds

    async def run(job: AsyncIterator[None]) -> None:
        nonlocal done
        async for _ in job:
            done += 1
            if time.perf_counter() >= end:
                return

    began = time.perf_counter()
    await asyncio.gather(*(run(job) for job in jobs))
    return done / (time.perf_counter() - began)
