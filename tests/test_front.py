"""The front of `turnwise serve`: who comes first, from where, and how much they may send."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect

from conftest import Opener, Talker, serving
from turnwise import Bot, Runtime, Turn
from turnwise.channels import websocket
from turnwise.server import front
from turnwise.server.app import create_app
from turnwise.settings import Settings


def echo() -> Bot:
    return Bot(lambda turn: turn.text)


@pytest.fixture
async def address(sqlite_url: str) -> AsyncIterator[tuple[str, int]]:
    """A server with the front that `turnwise serve` has."""
    app = create_app(Runtime(echo(), sqlite_url, settings=Settings(_env_file=None)))
    async with serving(app, http="turnwise.server.front:Front") as url:
        yield "127.0.0.1", int(url.rpartition(":")[2])


async def test_header_lines_that_never_end(address: tuple[str, int]) -> None:
    """Refused with 431 after 64 kB, whether in one line or in many; the next client is served."""
    for line in (b"x" * 1000, b"X-A: b\r\n" * 100):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
        answer = b""
        try:
            for _ in range(2000):
                writer.write(line)
                await writer.drain()
            answer = await asyncio.wait_for(reader.read(100), 5)
        except ConnectionError:
            answer = b" 431 "  # it was closed while we went on sending
        assert b" 431 " in answer
        writer.close()
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}") as client:
        large = {"Cookie": "x" * 30_000}
        assert (await client.get("/health/live", headers=large)).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET /x"])
async def test_sockets_that_never_say_what_they_want(
    address: tuple[str, int], begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without a whole request is closed, however slowly its bytes drip in; a second
    request on a line has its own time."""
    monkeypatch.setattr(front, "HEAD_PATIENCE", 0.6)
    reader, writer = await asyncio.open_connection(*address)
    if begun == b"GET /x":  # the second request of this line
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b'{"status":"ok"}'), 5)
    writer.write(begun)

    async def drip() -> None:
        while begun:
            await asyncio.sleep(0.1)
            writer.write(b"a")

    dripping = asyncio.ensure_future(drip())
    answer = await asyncio.wait_for(reader.read(), 5)
    dripping.cancel()
    assert b" 408 " in answer
    writer.close()


async def test_a_quick_request_is_not_hurried(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes in time is served, and an idle line stays open for the next request."""
    monkeypatch.setattr(front, "HEAD_PATIENCE", 0.3)
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}") as client:
        for _ in range(2):
            assert (await client.get("/health/live")).status_code == 200
            await asyncio.sleep(0.5)


async def test_sockets_that_never_say_who_they_are(
    open_sqlite_door: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many may be silent at once; whoever has said it is not affected."""
    monkeypatch.setattr(websocket, "MAX_UNKNOWN", 3)
    async with open_sqlite_door(echo()) as door:
        talker = await door.session()
        url = door.url.replace("http", "ws") + f"{talker.path}/ws"
        silent = [await connect(url, proxy=None) for _ in range(3)]
        async with connect(url, proxy=None) as fourth:
            await fourth.wait_closed()
            assert fourth.close_code == 1013
        async with connect(url, additional_headers=talker.auth, proxy=None) as known:
            await known.send('{"type": "ping"}')
            assert "pong" in str(await known.recv())
        for socket in silent:
            await socket.close()


async def test_only_what_is_accepted_counts(open_sqlite_door: Opener) -> None:
    """Bad bodies and repetitions with a key use up nobody's limit."""
    async with open_sqlite_door(echo(), messages_per_minute=2, sessions_per_minute=2) as door:
        for _ in range(5):
            assert (await door.client.post("/sessions", json={"ttl": -1})).status_code == 422
        talker = await door.session()
        for _ in range(5):
            assert (await talker.call("POST", "/turns", json={"text": ""})).status_code == 422
            again = await talker.call(
                "POST", "/turns", json={"text": "a"}, headers={"Idempotency-Key": "k"}
            )
            assert again.is_success
        await talker.say("b")
        assert (await talker.call("POST", "/turns", json={"text": "c"})).status_code == 429


SHOP = "https://shop.example"


async def test_pages_of_allowed_origins_use_every_door(open_sqlite_door: Opener) -> None:
    """Preflights and answers of all routes, errors and streams too; other origins get nothing."""
    async with open_sqlite_door(echo(), allowed_origins=f"{SHOP}/") as door:
        talker = await door.session()
        asked = {
            "Origin": SHOP,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        }
        for path in ("/sessions", f"{talker.path}/turns", f"{talker.path}/turns/1/cancel"):
            answer = await door.client.options(path, headers=asked)
            assert answer.status_code == 200, answer.text
            assert answer.headers["access-control-allow-origin"] == SHOP
            refused = await door.client.options(path, headers={**asked, "Origin": "https://x.y"})
            assert "access-control-allow-origin" not in refused.headers
        for method, path, more, status in (
            ("POST", "/turns", {"json": {"text": "hi"}}, 202),
            ("GET", "/messages", {}, 200),
            ("GET", "/turns/9", {}, 404),
            ("GET", "/events?turn=1", {}, 200),
        ):
            headers = {"Origin": SHOP}
            answer = await talker.call(method, path, headers=headers, **more)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == SHOP
        url = door.url.replace("http", "ws") + f"{talker.path}/ws"
        async with connect(url, additional_headers=talker.auth, origin=SHOP, proxy=None) as socket:  # type: ignore[arg-type]
            assert await socket.recv()


async def test_what_is_read_answers_head(open_sqlite_door: Opener) -> None:
    """Health, metrics and the pages, for load balancers and monitors."""
    async with open_sqlite_door(echo()) as door:
        for path in ("/", "/docs", "/health/live", "/health/ready", "/metrics", "/page/app.js"):
            answer = await door.client.head(path)
            assert (answer.status_code, answer.content) == (200, b""), path


async def test_the_page_of_the_interface(open_sqlite_door: Opener) -> None:
    """/docs shows each route with its fields and an example, as HTML that loads nothing from
    elsewhere; under a prefix its own files are found."""
    async with open_sqlite_door(echo()) as door:
        page = await door.client.get("/docs")
        document = (await door.client.get("/openapi.json")).json()
        text = html.unescape(page.text)
        for path in document["paths"]:
            assert path in text, path
        for name in ("attachments", "metadata", "Idempotency-Key", "has_more", "retryable"):
            assert name in text, name
        assert "Hello!" in text  # an example
        assert "<script" not in page.text
        assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page.text)
        for link in re.findall(r'href="(/[^"]+)"', page.text):
            assert (await door.client.get(link)).status_code == 200, link
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


async def test_history_says_how_turns_ended(open_door: Opener) -> None:
    """GET /messages: a person's message has the status of its turn, and why it failed."""

    async def reply(turn: Turn) -> str:
        if turn.text == "bad":
            raise ValueError("internal")
        return "ok"

    async with open_door(Bot(reply)) as door:
        talker = await door.session()
        await talker.say("good")
        await talker.say("bad")
        found = (await talker.call("GET", "/messages")).json()["messages"]
        ends = [(message["text"], message.get("status")) for message in found]
        assert ends == [("good", "completed"), ("ok", None), ("bad", "failed")]
        assert found[2]["error"]["code"] == "handler_error"
        turn = (await talker.call("GET", "/turns/2")).json()
        assert turn["message"]["status"] == "failed"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_half_sent_body_does_not_hold_up_the_end(
    open_sqlite_door: Opener, when: str
) -> None:
    """Begun before the stop or after it, it gets 503: another process may take the message."""
    async with open_sqlite_door(echo()) as door:
        talker: Talker = await door.session()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url[-5:].strip(":")))
        head = f"POST {talker.path}/turns HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        head += f"Authorization: Bearer {talker.token}\r\nContent-Type: application/json\r\n\r\n{{"
        if when == "after":
            door.runtime.retire()
        writer.write(head.encode())
        if when == "before":
            await asyncio.sleep(0.1)
            door.runtime.retire()
        assert b" 503 " in await asyncio.wait_for(reader.read(200), 5)
        writer.close()
