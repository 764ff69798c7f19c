"""WebSocket frames as nobody should send them: what RFC 6455 says comes back, and nothing breaks.

A baseline by the chapters of the protocol: framing, reserved bits and opcodes, fragmentation,
UTF-8, closing, limits.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from conftest import Door, Opener, Talker
from turnwise import Bot, Turn

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
ASK = b'{"type": "ping"}'


async def _echo(turn: Turn) -> str:
    return turn.text


def frame(
    opcode: int, data: bytes = b"", *, fin: int = 1, rsv: int = 0, masked: bool = True
) -> bytes:
    """One frame of a client."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    flag = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([flag | len(data)])
    elif len(data) < 65536:
        head += bytes([flag | 126]) + struct.pack("!H", len(data))
    else:
        head += bytes([flag | 127]) + struct.pack("!Q", len(data))
    return head + (bytes(4) if masked else b"") + data  # a mask of zeros is one, too


class Line:
    """A socket after its handshake, on which one may write what one likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    async def dribble(self, frame: bytes) -> None:
        for byte in frame:
            self._writer.write(bytes([byte]))
            await self._writer.drain()
            await asyncio.sleep(0)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame that comes: its opcode and its data."""
        first, length = await self._reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return first & 15, await self._reader.readexactly(length)

    async def outcome(self) -> int | str:
        """What comes next: the code of a close, or the type of a text frame."""
        async with asyncio.timeout(5):
            while True:
                opcode, data = await self.frame()
                if opcode == CLOSE:
                    return int(struct.unpack("!H", data[:2])[0]) if data else 1005
                if opcode == TEXT:
                    return str(json.loads(data)["type"])
                if opcode == PONG:
                    return f"pong {data.decode()}"


@asynccontextmanager
async def line(door: Door, talker: Talker) -> AsyncIterator[Line]:
    url = httpx.URL(door.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {talker.path}/ws HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n"
    head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    head += f"Sec-WebSocket-Key: {key}\r\nAuthorization: Bearer {talker.token}\r\n\r\n"
    writer.write(head.encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


def close(code: int, why: bytes = b"") -> bytes:
    return struct.pack("!H", code) + why


CASES: dict[str, tuple[list[bytes], int | str]] = {
    # the frames, and what comes of them: an answer, or the code of a close
    "a text": ([frame(TEXT, ASK)], "pong"),
    "in three pieces": (
        [frame(TEXT, b'{"type"', fin=0), frame(0, b': "pi', fin=0), frame(0, b'ng"}')],
        "pong",
    ),
    "a ping between pieces": (
        [frame(TEXT, b'{"type"', fin=0), frame(PING, b"x"), frame(0, b': "ping"}')],
        "pong x",
    ),
    "a ping": ([frame(PING, b"hello")], "pong hello"),
    "a ping of 125 bytes": ([frame(PING, b"y" * 125)], f"pong {'y' * 125}"),
    "a pong that nobody asked for": ([frame(PONG, b"z"), frame(TEXT, ASK)], "pong"),
    "a ping of 126 bytes": ([frame(PING, b"y" * 126)], 1002),
    "a ping in pieces": ([frame(PING, b"y", fin=0)], 1002),
    "a reserved bit": ([frame(TEXT, ASK, rsv=2)], 1002),
    "opcode 3": ([frame(3)], 1002),
    "opcode 11": ([frame(11)], 1002),
    "a piece of nothing": ([frame(0, ASK)], 1002),
    "a text within a text": ([frame(TEXT, b"{", fin=0), frame(TEXT, ASK)], 1002),
    "no mask": ([frame(TEXT, ASK, masked=False)], 1002),
    "no UTF-8": ([frame(TEXT, b'"\xff\xfe"')], 1007),
    "half a character": ([frame(TEXT, "\u00e9".encode()[:1])], 1007),
    "a surrogate": ([frame(TEXT, b"\xed\xa0\x80")], 1007),
    "bytes": ([frame(BINARY, ASK)], "error"),
    "nothing": ([frame(TEXT)], "error"),
    "17 MB": ([frame(TEXT, b"x" * 17_000_000)], 1009),
    "a close": ([frame(CLOSE, close(1000, b"bye"))], 1000),
    "a close without a code": ([frame(CLOSE)], 1005),
    "a close of one byte": ([frame(CLOSE, b"x")], 1002),
    "a close with code 1005": ([frame(CLOSE, close(1005))], 1002),
    "a close with code 999": ([frame(CLOSE, close(999))], 1002),
    "a close that is no UTF-8": ([frame(CLOSE, close(1000, b"\xff"))], 1007),
}


@pytest.mark.parametrize("name", CASES)
async def test_frames(open_sqlite_door: Opener, name: str) -> None:
    """The right close code or the right answer; and the server goes on with others."""
    frames, expected = CASES[name]
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        async with line(door, talker) as raw:
            raw.send(*frames)
            assert await raw.outcome() == expected
        assert (await talker.say("hi"))["status"] == "completed"


async def test_byte_by_byte(open_sqlite_door: Opener) -> None:
    """A frame that comes in 30 pieces of TCP is a frame."""
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        async with line(door, talker) as raw:
            await raw.dribble(frame(TEXT, ASK))
            assert await raw.outcome() == "pong"
