"""What things cost on each store, as slopes: `python bench/slopes.py`, which writes slopes.json.

A slope is the difference between much and little of a thing, divided by how much more it was, so
what is always there drops out. CPU is measured of the server process and of the store's own
processes; bytes are what the store keeps. `bench/scale.py` computes with these figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from client import Connection, Talker
from cost_rows import cpu, cpu_of_all
from measure import (
    CLIENT_CORE,
    CONNECTIONS,
    HERE,
    SERVER_CORE,
    Served,
    await_port,
    count_words,
    free_port,
    memory,
    served,
)
from reader_rows import deltas_of_a_turn, idle, settled

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from postgres_servers import PostgresServer
from redis_servers import RedisCluster, RedisServer

FIGURES = Path(__file__).parent / "slopes.json"
TIMES = 3
FEW, MANY = 1_000, 5_000
TEXT = (
    "a hundred characters, as long as what people write, which is a sentence or two, and no more.."
)
READERS = 2_000


@dataclass
class Slopes:
    """µs of CPU of the server (`_server`) and of the store's processes (`_store`), and bytes."""

    turn_server: float = 0.0
    turn_store: float = 0.0
    turn_web: float = 0.0
    turn_worker: float = 0.0
    """The same turn where one process serves and another one works."""
    delta_server: float = 0.0
    delta_store: float = 0.0
    event_reader: float = 0.0
    """One event to one more reader of its session."""
    reader_bytes: float = 0.0
    """Memory of the server for a reader who waits."""
    session_bytes: float = 0.0
    """In the store, for a session that has had no turn."""
    session_memory: float = 0.0
    """Memory of the server for a session that nobody uses."""
    turn_bytes: float = 0.0
    """In the store, for a turn of a hundred characters each way."""


@dataclass
class Kept:
    """A store: its URL, the CPU that its own processes have used, and the bytes that it holds."""

    url: str
    cpu: Callable[[], float]
    size: Callable[[], Awaitable[float]]


@contextlib.contextmanager
def sqlite_store(folder: Path) -> Iterator[Kept]:
    file = folder / "slopes.db"

    async def size() -> float:
        db = sqlite3.connect(file)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        used = db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        found = float(used.fetchone()[0])
        db.close()
        return found

    yield Kept(f"sqlite:///{file}", lambda: 0.0, size)


@contextlib.contextmanager
def redis_store(folder: Path) -> Iterator[Kept]:
    server = RedisServer(folder, free_port())
    server.start()
    try:
        yield Kept(server.url, lambda: _redis_cpu(server), lambda: _redis_size(server))
    finally:
        server.kill()


@contextlib.contextmanager
def cluster_store(folder: Path) -> Iterator[Kept]:
    cluster = RedisCluster(folder, [free_port() for _ in range(3)])
    cluster.start()

    async def size() -> float:
        return sum([await _redis_size(node) for node in cluster.nodes])

    try:
        yield Kept(cluster.url, lambda: sum(map(_redis_cpu, cluster.nodes)), size)
    finally:
        cluster.kill()


def _redis_cpu(server: RedisServer) -> float:
    with server.client() as client:
        used = client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


async def _redis_size(server: RedisServer) -> float:
    with server.client() as client:
        return float(client.info("memory")["used_memory_dataset"])


@contextlib.contextmanager
def postgres_store(folder: Path) -> Iterator[Kept]:
    server = PostgresServer()
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for pid in (server.pid, *map(int, children)):
        os.sched_setaffinity(pid, {CLIENT_CORE})

    async def size() -> float:
        await server.execute("VACUUM")
        return float(await server.value("SELECT pg_database_size(current_database())"))

    try:
        yield Kept(server.url, lambda: cpu_of_all(server.pid), size)
    finally:
        server.stop()


STORES = {
    "sqlite": sqlite_store,
    "redis": redis_store,
    "redis-cluster": cluster_store,
    "postgres": postgres_store,
}


async def turns(talkers: list[Talker], each: int) -> None:
    async def work(talker: Talker) -> None:
        for _ in range(each):
            await talker.turn(TEXT)

    await asyncio.gather(*map(work, talkers))


async def streams(talkers: list[Talker], words: int) -> None:
    """Each asks for so many words, one every three milliseconds, and reads them."""
    await asyncio.gather(*(count_words(talker.stream(f"{words} slowly")) for talker in talkers))


async def crowd(port: int, talker: Talker, readers: int, words: int) -> None:
    """A turn that so many others read, live."""
    connections = [await Connection(port).open() for _ in range(readers)]
    path = f"{talker.path}/events?after={await talker.last_event()}"
    reading = [
        asyncio.create_task(deltas_of_a_turn(one.stream("GET", path, b"", talker.auth)))
        for one in connections
    ]
    await asyncio.sleep(1)
    await talker.turn(f"{words} slowly")
    await asyncio.gather(*reading)
    for one in connections:
        one.close()


async def between(
    seconds: Callable[[], tuple[float, float]], less: Awaitable[None], more: Awaitable[None]
) -> tuple[float, float]:
    """How much more CPU `more` costs than `less`, of the server and of the store, in µs."""
    start = seconds()
    await less
    middle = seconds()
    await more
    end = seconds()
    found = [1e6 * (c - 2 * b + a) for a, b, c in zip(start, middle, end, strict=True)]
    return found[0], found[1]


async def median(measure: Callable[[], Awaitable[tuple[float, float]]]) -> tuple[float, float]:
    found = [await measure() for _ in range(TIMES)]
    return statistics.median(a for a, _ in found), statistics.median(b for _, b in found)


async def costs(ours: Served, kept: Kept, slopes: Slopes) -> None:
    """A turn, a delta, an event to a reader."""

    def seconds() -> tuple[float, float]:
        return cpu(ours.pid), kept.cpu()

    talkers = [await Talker.make(ours.port) for _ in range(CONNECTIONS)]
    await turns(talkers, 5)

    async def turn() -> tuple[float, float]:
        found = await between(seconds, turns(talkers, 5), turns(talkers, 105))
        return found[0] / (100 * CONNECTIONS), found[1] / (100 * CONNECTIONS)

    slopes.turn_server, slopes.turn_store = await median(turn)
    for talker in talkers:
        talker.connection.close()


@contextlib.contextmanager
def apart(store: str) -> Iterator[tuple[Served, int]]:
    """A server and a worker as two processes; yields the server, and the worker's number."""
    port = free_port()
    command = [sys.executable, "-m", "turnwise"]
    more = ["servers:trivial", "--store", store, "--log-level", "error"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["preexec_fn"] = lambda: os.sched_setaffinity(0, {SERVER_CORE})
    serving = [*command, "serve", *more, "--no-work", "--port", str(port)]
    web = subprocess.Popen(serving, cwd=HERE, **quiet)
    work = subprocess.Popen([*command, "work", *more], cwd=HERE, **quiet)
    try:
        await_port(port)
        yield Served(port, web.pid), work.pid
    finally:
        for process in (web, work):
            process.kill()
            process.wait()


async def split_costs(web: Served, worker: int, slopes: Slopes) -> None:
    """A turn, where one process serves and another one works."""

    def seconds() -> tuple[float, float]:
        return cpu(web.pid), cpu(worker)

    talkers = [await Talker.make(web.port) for _ in range(CONNECTIONS)]
    await turns(talkers, 5)

    async def turn() -> tuple[float, float]:
        found = await between(seconds, turns(talkers, 5), turns(talkers, 105))
        return found[0] / (100 * CONNECTIONS), found[1] / (100 * CONNECTIONS)

    slopes.turn_web, slopes.turn_worker = await median(turn)


async def stream_costs(ours: Served, kept: Kept, slopes: Slopes) -> None:
    def seconds() -> tuple[float, float]:
        return cpu(ours.pid), kept.cpu()

    talkers = [await Talker.make(ours.port) for _ in range(4)]

    async def delta() -> tuple[float, float]:
        found = await between(seconds, streams(talkers, 50), streams(talkers, 1050))
        return found[0] / 4000, found[1] / 4000

    async def event() -> tuple[float, float]:
        few, many = crowd(ours.port, talkers[0], 20, 100), crowd(ours.port, talkers[0], 220, 100)
        found = await between(seconds, few, many)
        return found[0] / (200 * 100), found[1]

    slopes.delta_server, slopes.delta_store = await median(delta)
    slopes.event_reader, _ = await median(event)


async def sizes(ours: Served, kept: Kept, slopes: Slopes) -> None:
    """Sessions without turns, their turns, and readers who wait."""
    connection = await Connection(ours.port).open()
    talker = await Talker.make(ours.port)

    async def sessions(count: int) -> tuple[float, float]:
        for _ in range(count):
            await connection.request("POST", "/sessions", b"{}")
        await asyncio.sleep(2)
        return await kept.size(), memory(ours.pid) * 1024

    few, many = await sessions(FEW), await sessions(MANY)
    slopes.session_bytes = (many[0] - few[0]) / MANY
    slopes.session_memory = max(0.0, (many[1] - few[1]) / MANY)

    async def after(count: int) -> float:
        for _ in range(count):
            await talker.turn(TEXT)
        await asyncio.sleep(2)
        return await kept.size()

    before = await after(FEW)
    slopes.turn_bytes = (await after(MANY) - before) / MANY
    talkers = [await Talker.make(ours.port) for _ in range(50)]
    started = memory(ours.pid)
    waiting = [asyncio.create_task(idle(ours.port, talkers[i % 50])) for i in range(READERS)]
    await settled(ours.pid)
    slopes.reader_bytes = (memory(ours.pid) - started) * 1024 / READERS
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def measured() -> AsyncIterator[tuple[str, Slopes]]:
    for name, store in STORES.items():
        slopes = Slopes()
        folder = tempfile.TemporaryDirectory(prefix="turnwise-slopes-")
        with folder as path, store(Path(path)) as kept:
            with served("turns", factory=True, store=kept.url) as ours:
                await costs(ours, kept, slopes)
            with apart(kept.url) as (web, worker):
                await split_costs(web, worker, slopes)
            with served("deltas", factory=True, store=kept.url) as ours:
                await stream_costs(ours, kept, slopes)
            with served("turns", factory=True, store=kept.url) as ours:
                await sizes(ours, kept, slopes)
        yield name, slopes


async def main() -> None:
    os.sched_setaffinity(0, {CLIENT_CORE})
    found = {}
    async for name, slopes in measured():
        found[name] = {key: round(value, 2) for key, value in asdict(slopes).items()}
        print(name, found[name], flush=True)
    FIGURES.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    uvloop.run(main())
