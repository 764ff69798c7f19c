"""Doors while things go wrong: readers that leave, come back all at once, or do not read; servers
that stop; clients that ask twice; tokens that end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import SSEError, aconnect_sse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from conftest import Door, Opener, Process, Talker
from turnwise import Bot, Turn

ENDS = ("turn.completed", "turn.failed", "turn.cancelled")
Serve = Callable[..., Process]


@pytest.fixture
def pair(tmp_path: Path, processes: list[Process], store_url: str) -> list[Process]:
    """Two servers on one store of each kind."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        process = Process(tmp_path / name, "bots:counter", "--grace", "2", store=store_url)
        processes.append(process)
        process.start()
    return processes


# Reading


async def by_stream(process: Process, talker: Talker, after: int) -> AsyncIterator[dict[str, Any]]:
    headers = {**talker.auth, "Last-Event-ID": str(after)}
    async with (
        process.client() as client,
        aconnect_sse(client, "GET", f"{talker.path}/events", headers=headers) as source,
    ):
        async for event in source.aiter_sse():
            yield event.json()


async def by_socket(process: Process, talker: Talker, after: int) -> AsyncIterator[dict[str, Any]]:
    async with socket_of(process.url, talker, after) as socket:
        async for frame in socket:
            yield json.loads(frame)


async def by_polls(process: Process, talker: Talker, after: int) -> AsyncIterator[dict[str, Any]]:
    headers = {**talker.auth, "Accept": "application/json"}
    async with process.client() as client:
        while True:
            path = f"{talker.path}/events?after={after}&wait=5&limit=2"
            for event in (await client.get(path, headers=headers)).json()["events"]:
                yield event
                after = event["id"]


def number(cursor: str) -> int:
    """The number of the event that a cursor names."""
    return int(cursor.partition("-")[0])


def socket_of(url: str, talker: Talker, after: int = 0, **more: Any) -> connect:
    address = f"{url.replace('http', 'ws')}{talker.path}/ws?after={after}"
    return connect(address, additional_headers=talker.auth, proxy=None, **more)


async def test_leaving_after_every_event(pair: list[Process]) -> None:
    """For every k: leave after event k, go on through another door at the other process, while
    the reply is being made: exactly 1 to n, each the same for all."""
    async with pair[0].client() as client:
        talker = await Talker.make(client)
        await talker.say("16", None)
        doors = [by_stream, by_socket, by_polls]

        async def read(k: int) -> list[dict[str, Any]]:
            seen: list[dict[str, Any]] = []
            while not (seen and seen[-1]["type"] in ENDS):
                first = not seen
                door = doors[k % 3] if first else doors[(k + 1) % 3]
                reading = door(pair[0 if first else 1], talker, seen[-1]["id"] if seen else 0)
                async for event in reading:
                    seen.append(event)
                    if event["type"] in ENDS or (first and len(seen) == k):
                        break
                await reading.aclose()  # type: ignore[attr-defined]
            return seen

        async with asyncio.timeout(30):
            found = await asyncio.gather(*(read(k) for k in range(1, 12)))
        whole = await talker.events()
        assert [event["id"] for event in whole] == list(range(1, len(whole) + 1))
        assert len(whole) >= 10
        for seen in found:
            assert seen == whole


@pytest.mark.slow
async def test_five_hundred_readers_come_back_at_once(open_door: Opener) -> None:
    """All of them at one moment, in mid-reply: each hears exactly what it lacks, and the reply is
    not late."""
    bot = Bot()

    @bot.reply
    async def tell(turn: Turn) -> AsyncIterator[str]:
        for i in range(20):
            yield f"{i} "
            await asyncio.sleep(0.05)

    async with open_door(bot) as door:
        talker = await door.session()
        await talker.say("hi", None)
        await talker.events(4, wait=5)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=door.url, timeout=30, limits=limits) as client:

            async def come_back(i: int) -> list[int]:
                seen: list[int] = []
                while True:
                    last = str(seen[-1] if seen else i % 5)
                    headers = {**talker.auth, "Last-Event-ID": last}
                    with contextlib.suppress(SSEError):  # 503: a store that answers late
                        async with aconnect_sse(
                            client, "GET", f"{talker.path}/events", headers=headers
                        ) as source:
                            async for event in source.aiter_sse():
                                seen.append(number(event.id))
                                if event.event in ENDS:
                                    return seen

            async with asyncio.timeout(30):
                found = await asyncio.gather(*(come_back(i) for i in range(500)))
        last = (await talker.events())[-1]["id"]
        for i, seen in enumerate(found):
            assert seen == list(range(i % 5 + 1, last + 1))
        async with asyncio.timeout(10):
            while door.runtime.gateway.hub.count:
                await asyncio.sleep(0.05)


def resident(process: Process) -> int:
    """A process's memory in kB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def open_streams(client: httpx.AsyncClient, count: int) -> None:
    """Return when the server has so many open streams."""
    async with asyncio.timeout(15):
        while f"turnwise_open_streams {count}.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_readers_that_do_not_read(
    tmp_path: Path, processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty of them on streams and sockets, while 8 MB are said: each is dropped in its time,
    memory stays flat, and one who reads hears everything meanwhile."""
    monkeypatch.setenv("TURNWISE_SEND_TIMEOUT", "3")
    process = Process(tmp_path, "bots:flood")
    processes.append(process)
    process.start()
    async with process.client() as client, contextlib.AsyncExitStack() as stack:

        async def hear(talker: Talker) -> int:
            """Say `go`, and how many letters come as deltas until the end."""
            heard = 0
            async with aconnect_sse(
                client, "GET", f"{talker.path}/events", headers=talker.auth
            ) as source:
                await talker.say("go", None)
                async for event in source.aiter_sse():
                    heard += len(event.json().get("text", ""))
                    if event.event in ENDS:
                        break
            return heard

        for _ in range(5):  # caches fill
            await hear(await Talker.make(client))
        talker = await Talker.make(client)
        request = f"GET {talker.path}/events HTTP/1.1\r\nHost: x\r\n"
        request += f"Authorization: Bearer {talker.token}\r\n\r\n"

        def narrow() -> socket.socket:
            """A connection that takes little before it is full."""
            made = stack.enter_context(socket.socket())
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.connect(("127.0.0.1", process.port))
            return made

        for _ in range(20):
            narrow().sendall(request.encode())
            door = socket_of(process.url, talker, sock=narrow(), max_queue=1, close_timeout=0.1)
            stalled = await stack.enter_async_context(door)
        await open_streams(client, 40)
        before = resident(process)
        assert await hear(talker) == 8_000_000
        assert resident(process) - before < 100_000  # 40 copies are 320,000
        await open_streams(client, 0)
        with contextlib.suppress(ConnectionClosed):
            while True:
                await stalled.recv()
        assert stalled.close_code in (4408, 1006)  # 1006: the word did not come through either


@pytest.mark.slow
async def test_stopping_with_open_doors(pair: list[Process]) -> None:
    """SIGTERM with 50 streams and 50 sockets open: it exits within its grace, sockets are told to
    come back (1012), and all go on at the other process without a hole."""
    process, other = pair
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=process.url, timeout=30, limits=limits) as client:
        talker = await Talker.make(client)
        await talker.say("25", None)
        seen: dict[int, list[int]] = {i: [] for i in range(100)}
        codes: Counter[int | None] = Counter()

        async def stream(i: int) -> None:
            async with aconnect_sse(
                client, "GET", f"{talker.path}/events", headers=talker.auth
            ) as source:
                async for event in source.aiter_sse():
                    seen[i].append(number(event.id))

        async def listen(i: int) -> None:
            async with socket_of(process.url, talker) as socket:
                try:
                    while True:
                        seen[i].append(json.loads(await socket.recv())["id"])
                except ConnectionClosed:
                    codes[socket.close_code] += 1

        reading = [asyncio.create_task(stream(i)) for i in range(50)]
        reading += [asyncio.create_task(listen(i)) for i in range(50, 100)]
        async with asyncio.timeout(15):
            while min(map(len, seen.values())) < 3:
                await asyncio.sleep(0.05)
        began = time.monotonic()
        status = await asyncio.to_thread(process.stop)
        assert time.monotonic() - began < 7  # a door that stays open costs so much alone
        assert status in (0, -signal.SIGTERM)
        await asyncio.gather(*reading)
        assert codes == {1012: 50}
    async with other.client() as client:
        talker.client = client
        turn = (await talker.call("GET", "/turns/1", headers={"Prefer": "wait=30"})).json()
        assert (turn["status"], turn["attempt"]) == ("completed", 1)
        last = (await talker.events())[-1]["id"]
        for numbers in seen.values():
            rest = [event["id"] for event in await talker.events(numbers[-1])]
            assert numbers + rest == list(range(1, last + 1))


# Asking


async def test_cancelling_as_it_ends(open_door: Opener) -> None:
    """A hundred turns, each cancelled about when it ends: each ends once, as its record says, and
    history and log agree."""
    bot = Bot()

    @bot.reply
    async def soon(turn: Turn) -> AsyncIterator[str]:
        yield "almost "
        await asyncio.sleep(0.01)
        yield "done"

    async with open_door(bot) as door:
        talkers = [await door.session() for _ in range(10)]

        async def race(talker: Talker) -> None:
            for i in range(10):
                n = (await talker.say("hi", None))["n"]
                await asyncio.sleep(0.003 * i)
                cancelled = (await talker.call("POST", f"/turns/{n}/cancel")).json()
                ended = (
                    await talker.call("GET", f"/turns/{n}", headers={"Prefer": "wait=10"})
                ).json()
                assert ended["status"] in ("completed", "cancelled")
                if cancelled["status"] == "completed":
                    assert ended["status"] == "completed"

        await asyncio.gather(*map(race, talkers))
        for talker in talkers:
            events = await talker.events()
            ends = [(e["turn"], e["type"]) for e in events if e["type"] in ENDS]
            turns = (await talker.call("GET", "/turns?limit=100")).json()["turns"]
            assert sorted(ends) == [(t["n"], f"turn.{t['status']}") for t in turns]
            whole = [
                e for e in events if e["type"] == "message" and not e["message"].get("partial")
            ]
            assert len(whole) == sum(kind == "turn.completed" for _, kind in ends)


async def test_fifty_posts_with_one_key(pair: list[Process]) -> None:
    """At once, over two processes: one turn, and all are told of it."""
    async with pair[0].client() as one, pair[1].client() as two:
        talker = await Talker.make(one)

        async def post(client: httpx.AsyncClient) -> tuple[int, int]:
            headers = {**talker.auth, "Idempotency-Key": "k", "Prefer": "wait=20"}
            answer = await client.post(f"{talker.path}/turns", json={"text": "2"}, headers=headers)
            return answer.status_code, answer.json()["n"]

        found = await asyncio.gather(*(post((one, two)[i % 2]) for i in range(50)))
        assert set(found) == {(200, 1)}
        assert await talker.history() == ["2", "1 2 "]


# Ends


async def close_code(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(10):
        await socket.wait_closed()
    return socket.close_code


async def test_a_token_ends_in_mid_stream(open_door: Opener) -> None:
    """Expired or refreshed away: streams and sockets close within seconds, sockets with 4401."""
    async with open_door(slow_bot(), token_ttl=3) as door:
        talker = await door.session()
        await talker.say("hi", None)
        assert await ends_of_both(door, talker) == 4401
    async with open_door(slow_bot()) as door:
        talker = await door.session()
        await talker.say("hi", None)
        assert await ends_of_both(door, talker, then=("POST", "/token")) == 4401


async def test_a_session_is_deleted_in_mid_stream(open_door: Opener) -> None:
    """Streams and sockets close within seconds, sockets with 4404; the handler is stopped."""
    async with open_door(slow_bot()) as door:
        talker = await door.session()
        await talker.say("hi", None)
        assert await ends_of_both(door, talker, then=("DELETE", "")) == 4404
        async with asyncio.timeout(10):
            while door.runtime.gateway.hub.count or asleep:
                await asyncio.sleep(0.02)


asleep: set[str] = set()


def slow_bot() -> Bot:
    async def doze(turn: Turn) -> AsyncIterator[str]:
        asleep.add(turn.session.id)
        try:
            yield "zzz"
            await asyncio.sleep(60)
        finally:
            asleep.discard(turn.session.id)

    return Bot(doze)


async def ends_of_both(
    door: Door, talker: Talker, then: tuple[str, str] | None = None
) -> int | None:
    """The close code of a socket; a stream that is open beside it ends as well."""
    async with (
        socket_of(door.url, talker) as socket,
        aconnect_sse(door.client, "GET", f"{talker.path}/events", headers=talker.auth) as source,
    ):
        await socket.recv()
        if then is not None:
            await talker.call(*then)
        async with asyncio.timeout(10):
            async for _ in source.aiter_sse():
                pass
        return await close_code(socket)
