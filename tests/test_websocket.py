"""The WebSocket door, with a real client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from conftest import Door, Opener, Talker
from turnwise import Ask, Bot, Message, Turn
from turnwise.channels import websocket as channel


async def _slow(turn: Turn) -> AsyncIterator[str]:
    for letter in turn.text:
        yield letter
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def open_socket(
    door: Door, talker: Talker, after: int = 0, **more: Any
) -> AsyncIterator[ClientConnection]:
    """A socket opened by its subprotocol, as a browser does."""
    url = f"{door.url.replace('http', 'ws')}{talker.path}/ws?after={after}"
    if "subprotocols" not in more and "additional_headers" not in more:
        more["subprotocols"] = ["turnwise.v1", f"token.{talker.token}"]
    async with connect(url, proxy=None, **more) as socket:
        yield socket


async def frames(
    socket: ClientConnection, until: str, patience: float = 10.0
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(patience):
        while not found or found[-1]["type"] != until:
            found.append(json.loads(await socket.recv()))
    return found


async def send(socket: ClientConnection, **frame: Any) -> None:
    await socket.send(json.dumps(frame))


async def closed(socket: ClientConnection) -> int:
    """The code with which the server closes."""
    async with asyncio.timeout(10):
        await socket.wait_closed()
    assert socket.close_code is not None
    return socket.close_code


async def test_talking(open_door: Opener) -> None:
    """Messages in, the same events as SSE out, `id` inside."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            assert socket.subprotocol == "turnwise.v1"
            await send(socket, type="message", text="hello", key="k")
            found = await frames(socket, "turn.completed")
            assert found == await talker.events()
            assert found[0]["key"] == "k"
            await send(socket, type="ping")
            assert (await frames(socket, "pong"))[-1] == {"type": "pong"}


async def test_resuming_through_another_door(open_door: Opener) -> None:
    """What HTTP began, a socket continues after any cursor, exactly."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        await talker.say("abcdef" * 8, None)
        first = await talker.events(0, wait=5)
        async with open_socket(door, talker, after=first[-1]["id"]) as socket:
            rest = await frames(socket, "turn.completed")
        assert first + rest == await talker.events()


async def test_cancel_over_the_socket(open_door: Opener) -> None:
    """A cancel names its turn."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            await send(socket, type="message", text="x" * 500)
            await frames(socket, "delta")
            await send(socket, type="cancel", turn=1)
            assert (await frames(socket, "turn.cancelled"))[-2]["message"]["partial"] is True


@pytest.mark.parametrize("way", ["header", "frame"])
async def test_other_ways_to_bring_the_token(open_door: Opener, way: str) -> None:
    """In the Authorization header, or in a first frame."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        more: dict[str, Any] = {"subprotocols": ["turnwise.v1"]}
        if way == "header":
            more["additional_headers"] = talker.auth
        async with open_socket(door, talker, **more) as socket:
            if way == "frame":
                await send(socket, type="auth", token=talker.token)
            await send(socket, type="message", text="hi")
            await frames(socket, "turn.completed")


@pytest.mark.parametrize(
    "frame",
    ['{"type":"auth","token":"wrong"}', '{"type":"message","text":"hi"}', "[]", "{", "{}", b"x"],
)
async def test_first_frames_that_open_nothing(open_door: Opener, frame: str | bytes) -> None:
    """A wrong token, or a message before it: closed with 4401, nothing is accepted."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        async with open_socket(door, talker, subprotocols=["turnwise.v1"]) as socket:
            await socket.send(frame)
            assert await closed(socket) == 4401
        assert await talker.events() == []


async def test_no_token_in_time(open_door: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends no token is shown out."""
    monkeypatch.setattr(channel, "AUTH_PATIENCE", 0.1)
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        async with open_socket(door, talker, subprotocols=["turnwise.v1"]) as socket:
            assert await closed(socket) == 4401


async def test_foreign_sessions_and_absent_ones(open_door: Opener) -> None:
    """4404 for both."""
    async with open_door(Bot(_slow)) as door:
        mine, other = await door.session(), await door.session()
        protocols = ["turnwise.v1", f"token.{other.token}"]
        async with open_socket(door, mine, subprotocols=protocols) as socket:
            assert await closed(socket) == 4404
        await mine.call("DELETE")
        async with open_socket(door, mine) as socket:
            assert await closed(socket) == 4404


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1"])
async def test_foreign_origins(open_door: Opener, origin: str) -> None:
    """A page of another origin may not connect, not even with a token."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with open_socket(
                door, talker, origin=origin, subprotocols=[f"token.{talker.token}"]
            ):
                pass
        assert caught.value.response.status_code == 403


async def test_allowed_origins(open_door: Opener) -> None:
    """The server's own origin, and those that are set."""
    async with open_door(Bot(_slow), allowed_origins="https://app.example") as door:
        talker = await door.session()
        for origin in (door.url, "https://app.example"):
            async with open_socket(
                door, talker, origin=origin, subprotocols=[f"token.{talker.token}"]
            ) as socket:
                await send(socket, type="ping")
                await frames(socket, "pong")


BAD_FRAMES: list[str | bytes] = [
    "",
    "{",
    "null",
    "[]",
    '"x"',
    '{"type":"unknown"}',
    '{"type":"message"}',
    '{"type":"message","text":null}',
    '{"type":"message","text":["a"]}',
    '{"type":"message","text":"  "}',
    '{"type":"message","text":"\\ud800"}',
    '{"type":"message","text":"x","role":"system"}',
    '{"type":"message","text":"x","key":7}',
    '{"type":"message","text":NaN}',
    '{"type":"cancel"}',
    '{"type":"cancel","turn":"1"}',
    '{"type":"cancel","turn":-1}',
    '{"type":"cancel","turn":99}',
    '{"type":"message","text":"%s"}' % ("x" * 200_000),
    "[" * 100_000,
    b"\x00\x01",
]


async def test_bad_frames(open_door: Opener) -> None:
    """Each gets an error frame, changes nothing, and the socket stays open."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            for bad in BAD_FRAMES:
                await socket.send(bad)
                error = (await frames(socket, "error"))[-1]
                assert error["code"], bad
            assert await talker.events() == []
            await send(socket, type="message", text="ok")
            await frames(socket, "turn.completed")


async def test_a_thousand_frames(open_door: Opener) -> None:
    """A client in a hurry: what does not fit is told, what was accepted is answered in order."""
    async with open_door(Bot(lambda turn: turn.text, queue_limit=50)) as door:
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            for i in range(1000):
                await send(socket, type="message", text=f"m{i}")
            await send(socket, type="ping")
            found = await frames(socket, "pong", 60)
            queued = [f["message"]["text"] for f in found if f["type"] == "turn.queued"]
            refused = [f for f in found if f["type"] == "error"]
            # On a machine that is busy with other things the store may not answer in time.
            assert {f["code"] for f in refused} <= {"queue_full", "perhaps_kept"}
            while len(queued) + len(refused) < 1000:
                more = json.loads(await socket.recv())
                if more["type"] == "turn.queued":
                    queued.append(more["message"]["text"])
        last = (await talker.call("GET")).json()["turns"]
        await talker.call("GET", f"/turns/{last}", headers={"Prefer": "wait=30"})
        history = await talker.history()
        assert history[-1] == history[-2]
        answered = iter(history)
        assert all(text in answered for text in queued[-200:])


async def test_the_socket_hears_the_end(open_door: Opener) -> None:
    """Deleted: 4404. Tokens made anew: 4401."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            await send(socket, type="ping")
            await frames(socket, "pong")
            await talker.call("DELETE")
            assert await closed(socket) == 4404
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            await send(socket, type="ping")
            await frames(socket, "pong")
            await talker.call("POST", "/token")
            assert await closed(socket) == 4401


async def test_the_token_is_in_no_log(open_door: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """Neither tokens nor texts are logged, whatever happens."""
    caplog.set_level("DEBUG")

    async def fail(turn: Turn) -> str:
        raise ValueError("no")

    async with open_door(Bot(fail)) as door:
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            await send(socket, type="message", text="a canary text")
            await frames(socket, "turn.failed")
    ours = [r for r in caplog.records if r.name.startswith(("turnwise", "uvicorn"))]
    assert any(record.name == "turnwise.worker" for record in ours)
    for record in ours:
        if record.name.startswith("turnwise"):
            line = caplog.handler.format(record)
            assert talker.token not in line
            assert "canary" not in line


async def test_answering(open_door: Opener) -> None:
    """A message frame may carry answers; a second answer gets an error frame, and the socket
    stays open."""

    async def reply(turn: Turn) -> str | Message:
        if turn.answers:
            return f"got {turn.answers[0].value}"
        return Ask("Sure?", choices=["yes", "no"])

    async with open_door(Bot(reply)) as door:
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            await send(socket, type="message", text="hi")
            told = await frames(socket, "turn.completed")
            (ask,) = [event["ask"] for event in told if event["type"] == "ask"]
            answers = [{"ask": ask["id"], "value": "yes"}]
            await send(socket, type="message", answers=answers, key="k")
            told = await frames(socket, "turn.completed")
            assert [event["text"] for event in told if event["type"] == "delta"] == ["got yes"]
            await send(socket, type="message", answers=answers, key="k2")
            (error,) = await frames(socket, "error")
            assert (error["code"], error["key"]) == ("ask_closed", "k2")
            await send(socket, type="message", answers=[{"ask": ask["id"]}])
            assert (await frames(socket, "error"))[0]["code"] == "invalid"
