"""What a turn costs: microseconds of CPU, on SQLite and on PostgreSQL, beside bare echoes.

CPU is the steady figure on a noisy machine; rates stand beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg

from client import Connection, Talker
from measure import CLIENT_CORE, CONNECTIONS, PAIRS, Row, Served, echo_rate, pairs, served, talk
from measure import turn_rate as rate_of

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from postgres_servers import PostgresServer

TURNS = 3200
MANY = 1000
"""Sessions that take turns, one after another, so that no page and no header is warm."""
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_of_all(pid: int) -> float:
    """The same for a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu(pid) + sum(cpu(int(child)) for child in children)


async def each(talkers: list[Talker], turns: int = TURNS) -> None:
    """So many turns in all, from as many connections as the other benches have."""
    waiting = [talkers[i % len(talkers)] for i in range(turns)]

    async def work(share: list[Talker]) -> None:
        for talker in share:
            await talker.turn()

    await asyncio.gather(*(work(waiting[i::CONNECTIONS]) for i in range(CONNECTIONS)))


async def echoes(port: int, count: int = TURNS) -> None:
    async def work(connection: Connection) -> None:
        for _ in range(count // CONNECTIONS):
            await connection.request("POST", "/echo", b'{"text": "hello"}')

    connections = [await Connection(port).open() for _ in range(CONNECTIONS)]
    await asyncio.gather(*(work(connection) for connection in connections))
    for connection in connections:
        connection.close()


async def micro(seconds: Callable[[], float], work: Awaitable[None]) -> float:
    """Microseconds of CPU for each of `TURNS`."""
    before = seconds()
    await work
    return (seconds() - before) / TURNS * 1e6


async def beside(ours: Served, talkers: list[Talker], echo: Served) -> tuple[float, float, float]:
    """Microseconds a turn, those of an echo, and the median of their ratios."""
    mine, theirs = [], []
    for _ in range(PAIRS):
        theirs.append(await micro(lambda: cpu(echo.pid), echoes(echo.port)))
        mine.append(await micro(lambda: cpu(ours.pid), each(talkers)))
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    return statistics.median(mine), statistics.median(theirs), statistics.median(ratios)


async def bench_costs() -> AsyncIterator[Row]:
    with (
        served("echo") as echo,
        served("asgi") as asgi,
        served("turns", factory=True) as ours,
    ):
        talkers = await talk(ours.port, 10)
        found = await beside(ours, talkers, echo)
        yield Row("µs of CPU a turn, beside a FastAPI echo's", *found, "≤ 275")
        found = await beside(ours, talkers, asgi)
        yield Row("µs of CPU a turn, beside a bare ASGI echo's", *found, "")
        many = [await Talker.make(ours.port) for _ in range(MANY)]
        found = await beside(ours, many, echo)
        yield Row(f"µs of CPU a turn, {MANY:,} sessions in turn", *found, "")


async def bench_profile() -> AsyncIterator[Row]:
    """Where a turn's CPU goes. The parts are sampled, and the whole is measured without it."""
    with served("sampled", factory=True) as ours:
        talkers = await talk(ours.port, 10)
        connection = await Connection(ours.port).open()
        await each(talkers)
        whole, samples = [], []
        for _ in range(PAIRS):
            whole.append(await micro(lambda: cpu(ours.pid), each(talkers)))
            await connection.request("GET", "/sampler/start", b"")
            await each(talkers)
            answer = await connection.request("GET", "/sampler/stop", b"")
            samples.append({k: v / TURNS * 1e6 for k, v in json.loads(answer).items()})
        names = {name for found in samples for name in found}
        parts = {n: statistics.median([found.get(n, 0.0) for found in samples]) for n in names}
        middle = statistics.median(whole)
        for name in sorted(parts, key=lambda name: -parts[name]):
            yield Row(f"µs of a turn: {name}", parts[name], middle, parts[name] / middle, "")
        total = sum(parts.values())
        yield Row(
            "µs of a turn: all parts, beside the whole", total, middle, total / middle, "0.9-1.1"
        )


async def bench_postgres() -> AsyncIterator[Row]:
    server = PostgresServer()
    for pid in (server.pid, *_children(server.pid)):
        os.sched_setaffinity(pid, {CLIENT_CORE})
    try:
        with (
            served("echo") as echo,
            served("turns", factory=True, store=server.url) as ours,
        ):
            talkers = await talk(ours.port, 10)
            found = await pairs(lambda: rate_of(talkers), lambda: echo_rate(echo.port))
            yield Row("PostgreSQL: turns/s, beside a bare FastAPI echo", *found, "≥ 0.45")
            found = await beside(ours, talkers, echo)
            yield Row("PostgreSQL: µs of CPU a turn, beside the echo's", *found, "≤ 310")
            theirs = await micro(lambda: cpu_of_all(server.pid), each(talkers))
            yield Row("PostgreSQL: µs of its own CPU a turn", theirs, 100.0, theirs / 100, "≤ 1")
            before = await _written(server)
            await each(talkers)
            writes = (await _written(server) - before) / TURNS
            yield Row("PostgreSQL: writing transactions a turn", writes, 0.3, writes / 0.3, "≤ 1")
    finally:
        server.stop()


async def _written(server: PostgresServer) -> int:
    """How many transactions have written."""
    db = await asyncpg.connect(server.url)
    found: int = await db.fetchval("SELECT pg_current_xact_id()::text::bigint")
    await db.close()
    return found


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]
