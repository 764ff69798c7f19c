"""The rows of the bench that are about many readers and several processes, on SQLite."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from client import Connection, Talker
from measure import (
    CONNECTIONS,
    HERE,
    PAIRS,
    Row,
    await_port,
    bare_words,
    free_port,
    memory,
    pairs,
    served,
    server,
    turn_rate,
)

IDLE = 5000
CROWD = 1000
WORDS = 200


async def bench_readers() -> AsyncIterator[Row]:
    with served("turns", factory=True) as ours:
        talkers = [await Talker.make(ours.port) for _ in range(50)]
        before = memory(ours.pid)
        tasks = [asyncio.create_task(idle(ours.port, talkers[i % 50])) for i in range(IDLE)]
        await settled(ours.pid)
        each = (memory(ours.pid) - before) / IDLE
        yield Row(f"kB for each of {IDLE:,} idle readers", each, 20.0, each / 20, "< 20 kB")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with server("bare") as bare, server("deltas", factory=True) as ours_port:
        talker = await Talker.make(ours_port)
        found = await pairs(
            lambda: deliveries(ours_port, talker), lambda: bare_words(bare, CROWD, WORDS)
        )
        yield Row(f"deltas/s to {CROWD:,} readers of one session, beside frames", *found, "≥ 0.60")


async def idle(port: int, talker: Talker) -> None:
    connection = await Connection(port).open()
    try:
        async for _ in connection.stream("GET", f"{talker.path}/events", b"", talker.auth):
            pass
    finally:
        connection.close()


async def settled(pid: int) -> None:
    """Return when the process's memory has stopped growing."""
    last = 0.0
    while memory(pid) > last + 100:
        last = memory(pid)
        await asyncio.sleep(3)


async def deliveries(port: int, talker: Talker) -> float:
    """Delta events per second that a crowd gets while one turn streams without a pause."""
    connections = [await Connection(port).open() for _ in range(CROWD)]
    await talker.turn("1")
    path = f"{talker.path}/events?after={await talker.last_event()}"
    readers = [
        asyncio.create_task(deltas_of_a_turn(c.stream("GET", path, b"", talker.auth)))
        for c in connections
    ]
    await asyncio.sleep(2)
    began = time.perf_counter()
    await talker.turn(f"{WORDS} slowly")
    total = sum(await asyncio.gather(*readers))
    found = total / (time.perf_counter() - began)
    for connection in connections:
        connection.close()
    return found


async def deltas_of_a_turn(chunks: AsyncIterator[bytes]) -> int:
    deltas = 0
    async for chunk in chunks:
        deltas += chunk.count(b"event: delta")
        if b"event: turn.completed" in chunk:
            break
    return deltas


async def bench_processes() -> AsyncIterator[Row]:
    """One process beside four, on all cores, with the client among them."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with uvicorn(1) as one, uvicorn(4) as four:
        crowds = await crowd(four), await crowd(one)
        found = await pairs(lambda: turn_rate(crowds[0]), lambda: turn_rate(crowds[1]))
        yield Row("turns/s with --workers 4, beside one process", *found, "≥ 0.95")
        late = [(await p99(crowds[0]), await p99(crowds[1])) for _ in range(PAIRS)]
        four_p99, one_p99 = (statistics.median(times) for times in zip(*late, strict=True))
        ratio = statistics.median(a / b for a, b in late)
        yield Row("ms to the reply with --workers 4 (p99)", four_p99, one_p99, ratio, "≤ 1.3")
    os.sched_setaffinity(0, mine)


async def crowd(port: int) -> list[Talker]:
    found = [await Talker.make(port) for _ in range(CONNECTIONS)]
    for talker in found:
        await talker.turn()
    return found


async def p99(talkers: list[Talker]) -> float:
    """Milliseconds until the reply, each asking again at once."""
    times: list[float] = []

    async def ask(talker: Talker) -> None:
        for _ in range(100):
            began = time.perf_counter()
            await talker.turn()
            times.append(time.perf_counter() - began)

    await asyncio.gather(*map(ask, talkers))
    return 1000 * statistics.quantiles(times, n=100)[-1]


@contextmanager
def uvicorn(workers: int) -> Iterator[int]:
    """Turnwise with a trivial bot, on any core; yields its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="turnwise-bench-", dir=HERE) as folder:
        store = f"sqlite:///{Path(folder) / 'bench.db'}"
        command = [sys.executable, "-m", "turnwise", "serve", "servers:trivial", "--store", store]
        process = subprocess.Popen(
            [*command, "--port", str(port), "--workers", str(workers)],
            cwd=HERE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await_port(port)
            yield port
        finally:
            process.terminate()
            process.wait()
