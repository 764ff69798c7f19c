"""The results of the bench as pictures under docs/images: `make bench`.

turns.svg: turns a second and the time to the reply against load, against a session's length, and
deliveries against readers. flames.svg: where the time of a turn goes in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from pathlib import Path

import uvloop

import measure
import reader_rows
from chart import Chart, Line, charts, flames
from client import Talker
from measure import CLIENT_CORE, served, server, turn_rate
from reader_rows import deliveries

IMAGES = Path(__file__).parent.parent / "docs" / "images"
LOADS = (1, 2, 4, 8, 16, 32, 64, 128)
LENGTHS = (10, 100, 1_000, 10_000)
READERS = (1, 10, 100, 1_000)


async def load() -> list[Chart]:
    """Turns a second and the time to the reply, with so many people who ask again at once."""
    rates, middles, lates = [], [], []
    with server("turns", factory=True) as port:
        for people in LOADS:
            talkers = [await Talker.make(port) for _ in range(people)]
            times: list[float] = []
            rates.append((people, await timed(talkers, times)))
            middles.append((people, 1000 * statistics.median(times)))
            lates.append((people, 1000 * statistics.quantiles(times, n=100)[-1]))
            for talker in talkers:
                talker.connection.close()
    return [
        Chart("Turns a second", "people who ask at once", [Line("turns/s", rates)]),
        Chart("Milliseconds to the reply", "people who ask at once",
              [Line("p50", middles), Line("p99", lates)]),
    ]  # fmt: skip


async def timed(talkers: list[Talker], times: list[float], seconds: float = 2.0) -> float:
    end = time.perf_counter() + seconds

    async def ask(talker: Talker) -> None:
        while (began := time.perf_counter()) < end:
            await talker.turn()
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(ask, talkers))
    return len(times) / (time.perf_counter() - began)


async def lengths() -> Chart:
    """Turns a second of sessions that are so long already."""
    found = []
    with server("turns", factory=True) as port:
        talkers = [await Talker.make(port) for _ in range(8)]
        done = 0
        for length in LENGTHS:
            await asyncio.gather(*(repeat(talker, length - done) for talker in talkers))
            done = length
            found.append((length, await turn_rate(talkers, 2.0)))
            done += int(found[-1][1] * 2 / len(talkers))
    return Chart("Turns a second", "turns that the session has had", [Line("8 sessions", found)])


async def repeat(talker: Talker, turns: int) -> None:
    for _ in range(turns):
        await talker.turn()


async def readers() -> Chart:
    """Events a second that readers of one session get."""
    found = []
    with server("deltas", factory=True) as port:
        talker = await Talker.make(port)
        for count in READERS:
            reader_rows.CROWD = count
            found.append((count, await deliveries(port, talker)))
    return Chart("Events delivered a second", "readers of one session", [Line("events/s", found)])


async def flame() -> str | None:
    """Where the time of a turn goes; None where the profiler may not look."""
    with served("turns", factory=True) as (port, pid), tempfile.TemporaryDirectory() as folder:
        talkers = [await Talker.make(port) for _ in range(measure.CONNECTIONS)]
        raw = Path(folder) / "stacks"
        command = ["record", "-d", "8", "-r", "400", "-f", "raw", "-o", str(raw), "-p", str(pid)]
        spy = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "py-spy", *command, stdout=DEVNULL, stderr=DEVNULL
        )
        await turn_rate(talkers, 9.0)
        if await spy.wait() or not raw.exists():
            return None
        return flames(map(_stack, filter(_on_the_loop, raw.read_text().splitlines())))


def _on_the_loop(line: str) -> bool:
    return ("Thread._bootstrap" not in line and "run_asgi" in line) or "turnwise" in line


def _stack(line: str) -> tuple[list[str], int]:
    """A stack from the first frame that says something, and its samples."""
    stack, _, samples = line.rpartition(" ")
    names = [frame.partition(" (")[0] for frame in stack.split(";")]
    start = next((i for i, name in enumerate(names) if name == "Runner.run"), -1)
    return names[start + 1 :], int(samples)


async def main() -> None:
    os.sched_setaffinity(0, {CLIENT_CORE})
    IMAGES.mkdir(exist_ok=True)
    drawn = charts([*await load(), await lengths(), await readers()])
    (IMAGES / "turns.svg").write_text(drawn)
    found = await flame()
    if found is not None:
        (IMAGES / "flames.svg").write_text(found)
    await asyncio.sleep(0)
    print(f"Drawn: {IMAGES}")


if __name__ == "__main__":
    uvloop.run(main())
