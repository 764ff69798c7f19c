"""What the benches share: a server on its core, the load of a client, pairs and their medians."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from client import Connection, Talker, rate

HERE = Path(__file__).parent
PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
CONNECTIONS = 32
SERVER_CORE, CLIENT_CORE = 0, min(1, (os.cpu_count() or 1) - 1)


class Served(NamedTuple):
    """A server process."""

    port: int
    pid: int


def free_port() -> int:
    """One that a node of a Redis Cluster can use, which needs the one 10,000 above as well."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port <= 55_535:
            return port


@contextlib.contextmanager
def server(app: str, **more: Any) -> Iterator[int]:
    """A server process of one worker on the server's core; yields its port."""
    with served(app, **more) as (port, _):
        yield port


@contextlib.contextmanager
def served(
    app: str,
    *,
    factory: bool = False,
    store: str | None = None,
    module: str = "servers",
    loop: str = "auto",
) -> Iterator[Served]:
    """The same, with the number of the process."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="turnwise-bench-", dir=HERE) as folder:
        program = [sys.executable, "serve.py", f"{module}:{app}", str(port)]
        process = subprocess.Popen(
            [*program, "factory" if factory else "", loop],
            cwd=HERE,
            env={**os.environ, "BENCH_STORE": store or f"sqlite:///{folder}/bench.db"},
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
        try:
            await_port(port)
            yield Served(port, process.pid)
        finally:
            process.terminate()
            process.wait()


def await_port(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")


async def echo_rate(port: int) -> float:
    """Requests per second of the bare echo."""
    connections = [await Connection(port).open() for _ in range(CONNECTIONS)]

    async def job(connection: Connection) -> AsyncIterator[None]:
        while True:
            await connection.request("POST", "/echo", b'{"text": "hello"}')
            yield

    found = await rate([job(connection) for connection in connections], SECONDS)
    for connection in connections:
        connection.close()
    return found


async def turn_rate(talkers: list[Talker], seconds: float = SECONDS) -> float:
    """Turns per second, each waited for."""

    async def job(talker: Talker) -> AsyncIterator[None]:
        while True:
            await talker.turn()
            yield

    return await rate([job(talker) for talker in talkers], seconds)


async def talk(port: int, turns: int) -> list[Talker]:
    """As many sessions as connections, each with `turns` turns behind it."""
    talkers = [await Talker.make(port) for _ in range(CONNECTIONS)]

    async def warm(talker: Talker) -> None:
        for _ in range(turns):
            await talker.turn()

    await asyncio.gather(*(warm(talker) for talker in talkers))
    return talkers


async def bare_words(port: int, streams: int, count: int) -> float:
    """Words per second from the bare stream, one frame each."""

    async def one() -> int:
        connection = await Connection(port).open()
        path = f"/stream?count={count}"
        words = await count_words(connection.stream("GET", path))
        connection.close()
        return words

    return await total_rate([one() for _ in range(streams)])


async def live_words(talkers: list[Talker], count: int) -> float:
    """Words per second from turns that stream to the one who asked."""
    return await total_rate([count_words(talker.stream(str(count))) for talker in talkers])


async def replayed_deltas(talker: Talker, readers: list[Connection], turn: int) -> float:
    """Delta events per second that readers of one finished turn get from its log."""
    path = f"{talker.path}/events?turn={turn}"
    jobs = [
        count_words(connection.stream("GET", path, b"", talker.auth), b"event: delta")
        for connection in readers
    ]
    return await total_rate(jobs)


async def count_words(chunks: AsyncIterator[bytes], word: bytes = b"word ") -> int:
    words = 0
    async for chunk in chunks:
        if b"event: message" in chunk:  # the whole text, which repeats the words
            chunk = chunk[: chunk.index(b"event: message")]
        words += chunk.count(word)
    return words


async def total_rate(jobs: list[Coroutine[Any, Any, int]]) -> float:
    began = time.perf_counter()
    return sum(await asyncio.gather(*jobs)) / (time.perf_counter() - began)


async def first_delta(talker: Talker, port: int, samples: int = 200) -> tuple[float, float]:
    """Medians in seconds: Turnwise's first delta, and the bare stream's first frame."""
    ours, theirs = [], []
    connection = await Connection(port).open()
    for _ in range(samples):
        began = time.perf_counter()
        found = None
        async for chunk in talker.stream("1"):
            if found is None and b"event: delta" in chunk:
                found = time.perf_counter() - began
        ours.append(found or 0.0)
        began = time.perf_counter()
        found = None
        async for _chunk in connection.stream("GET", "/stream?count=1"):
            found = found or time.perf_counter() - began
        theirs.append(found or 0.0)
        await asyncio.sleep(0.005)
    return statistics.median(ours), statistics.median(theirs)


async def pairs(
    a: Callable[[], Awaitable[float]], b: Callable[[], Awaitable[float]]
) -> tuple[float, float, float]:
    """Medians of `a`, of `b`, and of the ratio a/b pair by pair, after one pair to warm up."""
    found = [(await a(), await b()) for _ in range(PAIRS + 1)][1:]
    middle = statistics.median
    return middle(x for x, _ in found), middle(y for _, y in found), middle(x / y for x, y in found)


def memory(pid: int) -> float:
    """Resident kB of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return float(text.partition("VmRSS:")[2].split()[0])


class Row(NamedTuple):
    """A line of the table."""

    measured: str
    ours: float
    beside: float
    ratio: float
    aim: str
