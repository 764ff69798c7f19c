"""Real processes: four on one file, killed, stopped, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from conftest import Process, Talker, on

Serve = Callable[..., Process]


@pytest.fixture
def serve(
    tmp_path: Path, processes: list[Process], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> Serve:
    """A started Process on a store of each kind; on Redis a killed one's lease must run out."""
    if store_url.startswith("redis"):
        monkeypatch.setenv("TURNWISE_LEASE", "5")

    def begin(bot: str, *flags: str) -> Process:
        process = Process(tmp_path, bot, *flags, store=store_url)
        processes.append(process)
        process.start()
        return process

    return begin


async def eventually_ready(process: Process) -> None:
    async with process.client() as client, asyncio.timeout(30):
        while True:
            try:
                if (await client.get("/health/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


@pytest.mark.slow
@on("sqlite")
async def test_two_hundred_sessions_through_four_processes(serve: Serve) -> None:
    """Bursts of five messages each: every history is the exact sequence, each answered once."""
    process = serve("bots:echo", "--workers", "4")
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=process.url, timeout=60, limits=limits) as client:
        talkers = await asyncio.gather(*(Talker.make(client) for _ in range(200)))
        order = random.Random(7)

        async def burst(talker: Talker) -> None:
            await asyncio.sleep(order.random() * 0.5)
            for i in range(5):  # one after another: their order is the order of arrival
                await talker.say(f"m{i}", None)

        await asyncio.gather(*(burst(talker) for talker in talkers))

        async def check(talker: Talker) -> None:
            await talker.call("GET", "/turns/5", headers={"Prefer": "wait=60"})
            expected = [text for i in range(5) for text in (f"m{i}", f"{i + 1}: m{i}")]
            assert await talker.history() == expected
            events = await talker.events()
            assert [event["id"] for event in events] == list(range(1, len(events) + 1))
            ends = [event["turn"] for event in events if event["type"] == "turn.completed"]
            assert ends == [1, 2, 3, 4, 5]
            assert {e["attempt"] for e in events if e["type"] == "turn.started"} == {1}

        await asyncio.gather(*(check(talker) for talker in talkers))


@pytest.mark.slow
@on("redis", "postgres")
async def test_concurrent_messages_of_one_session_are_each_answered_once(serve: Serve) -> None:
    """Twenty at once over four processes: each kept, each answered, one at a time."""
    process = serve("bots:echo", "--workers", "4")
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=process.url, timeout=60, limits=limits) as client:
        talker = await Talker.make(client)
        turns = await asyncio.gather(*(talker.say(f"m{i}") for i in range(20)))
        replies = {turn["message"]["text"]: turn["reply"]["text"] for turn in turns}
        assert all(reply.endswith(f": {asked}") for asked, reply in replies.items())
        counts = sorted(int(reply.split(":")[0]) for reply in replies.values())
        assert counts == list(range(1, 21))


@pytest.mark.slow
@on("sqlite", "postgres")
async def test_killed_in_mid_answer(serve: Serve) -> None:
    """kill -9, start again: the turn is answered, the reader resumes, nothing twice or missing."""
    process = serve("bots:counter")
    seen: list[dict[str, Any]] = []

    async def follow(path: str, auth: dict[str, str], until: Callable[[], bool]) -> None:
        """Follow as EventSource does: with the last id, again and again."""
        async with process.client() as client:
            while not until():
                last = {"Last-Event-ID": str(seen[-1]["id"])} if seen else {}
                try:
                    async with aconnect_sse(
                        client, "GET", f"{path}/events", headers={**auth, **last}
                    ) as source:
                        async for event in source.aiter_sse():
                            if event.data:  # not cut off by the death of the server
                                seen.append(event.json())
                            if until():
                                return
                except httpx.TransportError:
                    await asyncio.sleep(0.05)

    async with process.client() as client:
        talker = await Talker.make(client)
        await talker.say("20", None)
        await talker.say("3", None)

    def deltas() -> int:
        return sum(event["type"] == "delta" for event in seen)

    await follow(talker.path, talker.auth, lambda: deltas() >= 3)
    process.kill()
    process.start()
    ends = ("turn.completed", "turn.failed")
    await follow(
        talker.path, talker.auth, lambda: sum(event["type"] in ends for event in seen) == 2
    )
    assert [event["id"] for event in seen] == list(range(1, len(seen) + 1))
    started = [(e["turn"], e["attempt"]) for e in seen if e["type"] == "turn.started"]
    assert started == [(1, 1), (1, 2), (2, 1)]
    whole = "".join(f"{i} " for i in range(1, 21))
    last_attempt = [e["text"] for e in seen if e["type"] == "delta" and e["turn"] == 1
                    and e["attempt"] == 2]  # fmt: skip
    assert "".join(last_attempt) == whole
    async with process.client() as client:
        talker.client = client
        assert await talker.history() == ["20", whole, "3", "1 2 3 "]


async def stop_between_acts(process: Process) -> None:
    """SIGSTOP, but not while it holds the lock of a SQLite file: that would stop everybody."""
    while True:
        process.signal(signal.SIGSTOP)
        path = process.store.removeprefix("sqlite:///")
        if path == process.store:
            return
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0.0)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                process.signal(signal.SIGCONT)
        await asyncio.sleep(0.01)


@pytest.mark.slow
@on("sqlite", "redis")
async def test_a_zombie_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP past the lease, another process takes over, SIGCONT: the zombie writes nothing, and
    its handler is stopped soon after waking."""
    monkeypatch.setenv("TURNWISE_LEASE", "3")
    first = serve("bots:counter")
    second = Process(first.folder, "bots:counter", store=first.store)
    second.start()
    try:
        async with first.client() as client:
            talker = await Talker.make(client)
            await talker.say("15", None)
            await talker.events(2, wait=5)
        await stop_between_acts(first)
        async with second.client() as client:
            talker.client = client
            turn = (await talker.call("GET", "/turns/1", headers={"Prefer": "wait=30"})).json()
            stopped = first.folder / f"stopped-{first.pid}"
            assert not stopped.exists()
            first.signal(signal.SIGCONT)
            async with asyncio.timeout(5):
                while not stopped.exists():
                    await asyncio.sleep(0.01)
            assert (turn["status"], turn["attempt"]) == ("completed", 2)
            await talker.say("2")
            events = await talker.events()
        whole = [e["text"] for e in events if e["type"] == "delta" and e["attempt"] == 2]
        assert "".join(whole) == "".join(f"{i} " for i in range(1, 16))
        assert [e["type"] for e in events].count("turn.completed") == 2
        assert [event["id"] for event in events] == list(range(1, len(events) + 1))
        await eventually_ready(first)
    finally:
        second.stop()


def set_writable(folder: Path, yes: bool) -> None:
    """The store's file in `folder`, and the folder itself."""
    folder.chmod(0o755 if yes else 0o555)
    (folder / "p.db").chmod(0o644 if yes else 0o444)


async def test_a_file_that_cannot_be_written(tmp_path: Path, processes: list[Process]) -> None:
    """A store on a read-only file is refused in words before anything is served, and is whole
    afterwards."""
    process = Process(tmp_path, "bots:echo")
    processes.append(process)
    process.start()
    async with process.client() as client:
        talker = await Talker.make(client)
        await talker.say("hi")
    process.stop()
    set_writable(tmp_path, False)
    try:
        command = [sys.executable, "-m", "turnwise", "serve", "--store", process.store]
        if os.geteuid() == 0:  # root writes everywhere, unless this is taken from it
            command = ["setpriv", "--bounding-set=-dac_override", *command]
        ended = await asyncio.create_subprocess_exec(
            *command, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(20):
            _, said = await ended.communicate()
        assert ended.returncode == 1
        words = " ".join(said.decode().split())
        assert "Error" in words
        assert "p.db" in words
        assert "Traceback" not in words
    finally:
        set_writable(tmp_path, True)
    process.start()
    async with process.client() as client:
        talker.client = client
        assert await talker.history() == ["hi", "1: hi"]


@on("redis")
async def test_logs_hold_no_secrets(serve: Serve) -> None:
    """The server's output names the session of a failed turn, and neither its token nor a text."""
    process = serve("bots:counter", "--log-level", "debug")
    async with process.client() as client:
        talker = await Talker.make(client)
        turn = await talker.say("a canary that is no number")
        assert turn["status"] == "failed"
    await asyncio.to_thread(process.stop)
    log = (process.folder / "log").read_text()
    assert "the handler failed" in log
    assert talker.token not in log
    assert "WARNING" in log or "ERROR" in log
    assert f"session {talker.id!r} turn 1" in log
    assert "canary" not in log
