"""Speed, side by side: `make bench`.

Each row sets Turnwise beside a bare server on the same core, under the same load from the same
client on the other core, in pairs one after the other; what counts is the ratio, and of several
pairs the median.
"""

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

import uvloop
from rich.console import Console
from rich.table import Table

from client import Connection, Talker, rate

HERE = Path(__file__).parent
PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
CONNECTIONS = 32
SERVER_CORE, CLIENT_CORE = 0, min(1, (os.cpu_count() or 1) - 1)


@contextlib.contextmanager
def server(app: str, *, factory: bool = False) -> Iterator[int]:
    """A server process of one worker on the server's core; yields its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="turnwise-bench-", dir=HERE) as folder:
        command = [sys.executable, "-m", "uvicorn", f"servers:{app}", "--port", str(port)]
        command += ["--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "900"]
        process = subprocess.Popen(
            command + (["--factory"] if factory else []),
            cwd=HERE,
            env={**os.environ, "BENCH_STORE": f"{folder}/bench.db"},
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
        try:
            _await_port(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def _await_port(port: int) -> None:
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


class Row(NamedTuple):
    """A line of the table."""

    measured: str
    ours: float
    beside: float
    ratio: float
    aim: str


async def bench_turns() -> AsyncIterator[Row]:
    with server("echo") as echo, server("turns", factory=True) as ours:
        young = await talk(ours, 10)
        found = await pairs(lambda: turn_rate(young), lambda: echo_rate(echo))
        yield Row("turns/s, beside a bare FastAPI echo", *found, "≥ 0.40")

        old = await talk(ours, 1000)
        fresh = [await talk(ours, 10) for _ in range(PAIRS + 1)]

        async def at_ten() -> float:
            return await turn_rate(fresh.pop(), 0.5)

        found = await pairs(lambda: turn_rate(old, 0.5), at_ten)
        yield Row("turns/s at turn 1,000, beside turn 10", *found, "≥ 0.90")

        long, short = [await Talker.make(ours)], [await Talker.make(ours)]
        for _ in range(25_000):
            await long[0].turn()
        found = await pairs(lambda: turn_rate(long), lambda: turn_rate(short))
        yield Row("turns/s after 50,000 messages, beside a new session", *found, "≥ 0.90")


async def bench_streams() -> AsyncIterator[Row]:
    with server("bare") as bare, server("deltas", factory=True) as ours:
        talker = await Talker.make(ours)
        mine, theirs = await first_delta(talker, bare)
        added = (mine - theirs) * 1000
        yield Row("ms to the first delta, idle (p50; the difference)", mine, theirs, added, "< 5")

        talkers = [await Talker.make(ours) for _ in range(CONNECTIONS)]
        found = await pairs(
            lambda: live_words(talkers, 1000), lambda: bare_words(bare, CONNECTIONS, 1000)
        )
        yield Row("words/s streamed live, beside a bare stream", *found, "≥ 0.50")

        turn = await talker.turn("1000 slowly")
        readers = [await Connection(ours).open() for _ in range(CONNECTIONS)]
        found = await pairs(
            lambda: replayed_deltas(talker, readers, turn),
            lambda: bare_words(bare, CONNECTIONS, 1000),
        )
        yield Row("deltas/s from the log, beside a bare stream", *found, "≥ 0.50")


async def main() -> None:
    os.sched_setaffinity(0, {CLIENT_CORE})
    console = Console(width=110)
    table = Table("measured", "Turnwise", "beside", "ratio", "aim", title="Turnwise, side by side")
    with console.status("Measuring, which takes some minutes") as status:
        for bench in (bench_turns(), bench_streams()):
            async for row in bench:
                status.update(f"Measured: {row.measured}")
                table.add_row(
                    row.measured, show(row.ours), show(row.beside), f"{row.ratio:.2f}", row.aim
                )
    console.print(table)


def show(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value * 1000:.2f} ms"


if __name__ == "__main__":
    uvloop.run(main())
