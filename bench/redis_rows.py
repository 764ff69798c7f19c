"""The rows of the bench that are about Redis. Redis itself runs on the client's core."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from client import Connection, Talker, rate
from cost_rows import each, micro
from measure import (
    CONNECTIONS,
    SECONDS,
    Row,
    echo_rate,
    free_port,
    memory,
    pairs,
    served,
    server,
    talk,
    turn_rate,
)

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from redis_servers import RedisServer

READERS = 2000


async def bench_redis() -> AsyncIterator[Row]:
    with tempfile.TemporaryDirectory(prefix="turnwise-redis-") as folder:
        redis = RedisServer(Path(folder), free_port())
        redis.start()
        try:
            async for row in _turns(redis):
                yield row
            async for row in _readers(redis):
                yield row
        finally:
            redis.kill()


def _own_cpu(redis: RedisServer) -> float:
    """Seconds of CPU that Redis has used."""
    with redis.client() as client:
        used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


async def _turns(redis: RedisServer) -> AsyncIterator[Row]:
    store = redis.url
    with server("echo") as echo, server("turns", factory=True, store=store) as ours:
        young = await talk(ours, 10)
        found = await pairs(lambda: turn_rate(young), lambda: echo_rate(echo))
        yield Row("Redis: turns/s, beside a bare FastAPI echo", *found, "≥ 0.50")
        own = await micro(lambda: _own_cpu(redis), each(young))
        yield Row("Redis: µs of its own CPU a turn", own, 60.0, own / 60, "≤ 1")

        with server("naive", store=store) as naive:
            for turns, aim in ((20, "≥ 1.5"), (300, "≥ 3")):
                talkers = await talk(ours, turns)
                names = [f"{turns}-{i}" for i in range(CONNECTIONS)]
                await naive_warm(naive, names, turns)
                found = await pairs(
                    lambda: turn_rate(talkers, 0.5),  # noqa: B023 used before the next
                    lambda: naive_rate(naive, names, 0.5),  # noqa: B023
                )
                yield Row(f"Redis: turns/s at turn {turns}, beside GET and SET", *found, aim)

        one = [await Talker.make(ours)]
        await repeat(one[0], 10)
        young_cost = await cost(redis, one[0])
        await repeat(one[0], 990)
        old_cost = await cost(redis, one[0])
        for what, old, new in zip(("bytes", "commands"), old_cost, young_cost, strict=True):
            measured = f"Redis: {what} a turn at turn 1,000, beside turn 10"
            yield Row(measured, old, new, old / new, "≤ 1.10")


async def naive_warm(port: int, names: list[str], turns: int) -> None:
    async def warm(name: str) -> None:
        connection = await Connection(port).open()
        for _ in range(turns):
            await naive_turn(connection, name)
        connection.close()

    await asyncio.gather(*(warm(name) for name in names))


async def naive_turn(connection: Connection, name: str) -> None:
    body = json.dumps({"session": name, "text": "hello"}).encode()
    await connection.request("POST", "/chat", body)


async def naive_rate(port: int, names: list[str], seconds: float = SECONDS) -> float:
    connections = [await Connection(port).open() for _ in names]

    async def job(connection: Connection, name: str) -> AsyncIterator[None]:
        while True:
            await naive_turn(connection, name)
            yield

    jobs = [job(c, n) for c, n in zip(connections, names, strict=True)]
    found = await rate(jobs, seconds)
    for connection in connections:
        connection.close()
    return found


async def repeat(talker: Talker, turns: int) -> None:
    for _ in range(turns):
        await talker.turn()


async def cost(redis: RedisServer, talker: Talker, turns: int = 300) -> tuple[float, float]:
    """Bytes to and from Redis, and commands in it, for one turn of `talker`."""

    def count() -> tuple[int, int]:
        with redis.client() as client:
            stats, commands = client.info("stats"), client.info("commandstats")
        total = stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
        calls = sum(found["calls"] for name, found in commands.items() if name != "cmdstat_info")
        return total, calls

    before = count()
    nothing = count()
    await repeat(talker, turns)
    after = count()
    return tuple(  # type: ignore[return-value]
        (c - b - (b - a)) / turns for a, b, c in zip(before, nothing, after, strict=True)
    )


async def _readers(redis: RedisServer) -> AsyncIterator[Row]:
    with (
        served("turns", factory=True, store=redis.url) as here,
        server("turns", factory=True, store=redis.url) as there,
    ):
        talkers = [await Talker.make(there) for _ in range(READERS)]
        for talker in talkers[1:]:
            talker.connection.close()
        with redis.client() as client:
            lines = len(client.client_list())
            before = memory(here.pid)
            readers = [asyncio.create_task(follow(here.port, talker)) for talker in talkers]
            first = readers[0]
            await asyncio.sleep(3)
            each = (memory(here.pid) - before) / READERS
            more = len(client.client_list()) - lines
        yield Row(f"Redis: kB for each of {READERS:,} idle readers", each, 30.0, each / 30, "≤ 1")
        yield Row("Redis: connections that they cost, beside none", more + 1, 1, more + 1, "1")
        delays = [await delay(talkers[0], here.port) for _ in range(30)]
        found = statistics.median(delays)
        row = "Redis: ms from a message there to its last event here (p50)"
        yield Row(row, found * 1000, 20.0, found / 0.02, "≤ 1")
        for reader in (first, *readers):
            reader.cancel()


async def follow(port: int, talker: Talker) -> None:
    """Read the session's events, here, until cancelled."""
    connection = await Connection(port).open()
    async for _ in connection.stream("GET", f"{talker.path}/events", b"", talker.auth):
        pass


async def delay(talker: Talker, port: int) -> float:
    """Seconds from a message there to the last event of its turn at a reader here."""
    connection = await Connection(port).open()
    after = await talker.last_event()
    stream = connection.stream("GET", f"{talker.path}/events?after={after}", b"", talker.auth)
    waiting = asyncio.ensure_future(anext(stream_until(stream, b"turn.completed")))
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    asked = asyncio.ensure_future(talker.turn())
    await waiting
    found = time.perf_counter() - began
    await asked
    connection.close()
    return found


async def stream_until(stream: AsyncIterator[bytes], word: bytes) -> AsyncIterator[None]:
    async for chunk in stream:
        if word in chunk:
            yield
