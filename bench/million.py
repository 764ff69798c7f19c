"""A file of a million sessions beside one of a thousand: python bench/million.py

Each figure is milliseconds, the median of several; cold ones are after the system has dropped the
file's pages from memory.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from turnwise import Bot, Runtime
from turnwise.conversation import Message
from turnwise.settings import Settings
from turnwise.stores.claim import NO_EPOCH, Desk, Outcome
from turnwise.stores.records import Submission
from turnwise.stores.sqlite import SQLiteStore

FEW, MANY = 1_000, int(os.environ.get("SESSIONS", "1000000"))
TIMES = 7
DESK = Desk("bench", 30.0, 3, 50, lambda _: (NO_EPOCH, 0))
TEXT = Message("hello there", role="user").encode()


async def fill(path: Path, count: int) -> None:
    """So many sessions, each with one turn behind it."""
    store = SQLiteStore(path)
    await store.open()

    async def one(i: int) -> None:
        name, taken = f"session-{i:07}", []
        wish = Submission(name, TEXT, create=True, ttl=1e7)
        await store.submit(wish, DESK, taken.append)
        await store.finish(taken[0], Outcome("completed", [TEXT]))

    for start in range(0, count, 500):
        await asyncio.gather(*(one(i) for i in range(start, min(start + 500, count))))
    await store.close()


async def timed(act: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await act()
    return (time.perf_counter() - began) * 1000


def forget(path: Path) -> None:
    """Drop the file's pages from the system's memory."""
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            handle = os.open(f"{path}{suffix}", os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def acts_on(
    store: SQLiteStore, names: list[str], count: int
) -> dict[str, list[Callable[[], Awaitable[Any]]]]:
    """What is timed, and how often."""
    middle = f"session-{count // 2:07}"
    return {
        "list 100": [lambda: store.sessions(limit=100)],
        "list 100 from the middle": [lambda: store.sessions(after=middle, limit=100)],
        "submit": [partial(store.submit, Submission(name, TEXT)) for name in names],
        "claim": [lambda: store.claim(DESK, 1) for _ in names],
        "history": [partial(store.history, name) for name in names],
        "sweep": [lambda: store.sweep(retention=1e9)],
    }


async def figures(path: Path, count: int, *, cold: bool) -> dict[str, float]:
    """Milliseconds of each act; in a cold file, of the first."""
    found: dict[str, list[float]] = {}
    settings = Settings(_env_file=None)
    for round in range(1 if cold else TIMES):
        if cold:
            forget(path)
        store = SQLiteStore(path)
        found.setdefault("open", []).append(await timed(store.open))
        names = [f"session-{(i * 7919 + round) % count:07}" for i in range(20)]

        for name, calls in acts_on(store, names, count).items():
            times = [await timed(call) for call in calls]
            found.setdefault(name, []).append(times[0] if cold else statistics.median(times))
        for name in names:
            await store.reset(name)
        await store.close()
        runtime = Runtime(Bot(lambda turn: turn.text), f"sqlite:///{path}", settings=settings)
        found.setdefault("start a runtime", []).append(await timed(runtime.start))
        await runtime.stop()
    return {name: statistics.median(times) for name, times in found.items()}


async def main() -> None:
    table = Table("ms", f"{FEW:,}", f"{MANY:,}", "ratio", f"{FEW:,} cold", f"{MANY:,} cold")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        kinds = []
        for count in (FEW, MANY):
            path = Path(folder) / f"{count}.db"
            await fill(path, count)
            warm = await figures(path, count, cold=False)
            kinds += [warm, await figures(path, count, cold=True)]
        size = (Path(folder) / f"{MANY}.db").stat().st_size
    few, few_cold, many, many_cold = kinds
    for name in few:
        row = (few[name], many[name], many[name] / few[name], few_cold[name], many_cold[name])
        table.add_row(name, *(f"{value:.2f}" for value in row))
    Console().print(table)
    print(f"{size / 1e6:,.0f} MB, {size / MANY:,.0f} bytes a session")


asyncio.run(main())
