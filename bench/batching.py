"""The batcher beside others, in one run: `make bench`.

A pretended model takes 2 ms and 0.05 ms an item, one batch of up to 32 at a time.
What it could do at best is measured by calling it in a loop with whole batches. Each contestant
has the same limits (32 items, a window of 5 ms where it has one) and a process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from aiodataloader import DataLoader
from async_batcher.batcher import AsyncBatcher
from batched import aio
from rich.console import Console
from rich.table import Table

from turnwise import Batcher

SIZE, WINDOW = 32, 0.005
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
Call = Callable[[Any], Awaitable[Any]]
Model = Callable[[list[Any]], Any]


class Poison(Exception):
    """A bad item."""


class Device:
    """The pretended model: one batch at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __call__(self, items: list[Any]) -> list[Any]:
        async with self._lock:
            await asyncio.sleep(0.002 + 0.00005 * len(items))
        if "poison" in items:
            raise Poison
        return list(items)


async def nothing(items: list[Any]) -> list[Any]:
    """A model that takes no time."""
    return list(items)


# The contestants: from a model to a call of one item, and how to end it.


def turnwise(model: Model, **more: Any) -> tuple[Call, Callable[[], Any]]:
    batcher: Batcher[Any, Any] = Batcher(model, max_size=SIZE, **more)
    return batcher.submit, batcher.aclose  # a future, like the others' calls


def async_batcher(model: Model) -> tuple[Call, Callable[[], Any]]:
    class Made(AsyncBatcher[Any, Any]):
        async def process_batch(self, batch: list[Any]) -> list[Any]:
            return list(await model(batch))

    made = Made(max_batch_size=SIZE, max_queue_time=WINDOW)
    return lambda item: made.process(item=item), made.stop


def batched(model: Model) -> tuple[Call, Callable[[], Any]]:
    async def call(items: list[Any]) -> list[Any]:
        return list(await model(items))

    made = aio.dynamically(call, batch_size=SIZE, timeout_ms=WINDOW * 1000)
    return made, _nothing_to_end


def aiodataloader(model: Model) -> tuple[Call, Callable[[], Any]]:
    async def load(keys: list[Any]) -> list[Any]:
        return list(await model([key[1] for key in keys]))

    loader: DataLoader[Any, Any] = DataLoader(load, max_batch_size=SIZE, cache=False)
    numbers = iter(range(10**9))
    return lambda item: loader.load((next(numbers), item)), _nothing_to_end


def bare(model: Model) -> tuple[Call, Callable[[], Any]]:
    async def call(item: Any) -> Any:
        return (await model([item]))[0]

    return call, _nothing_to_end


async def _nothing_to_end() -> None:
    pass


CONTESTANTS = {
    "Turnwise": turnwise,
    "async-batcher 0.2": async_batcher,
    "batched 0.1": batched,
    "aiodataloader": aiodataloader,
    "a bare call": bare,
}


# The rows


async def ideal(size: int) -> float:
    """Items per second of the model, called in a loop with batches of `size`."""
    device, items = Device(), list(range(size))
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < 1:
        await device(items)
        done += size
    return done / (time.perf_counter() - began)


async def closed_loop(call: Call, callers: int, seconds: float) -> float:
    """Items per second of callers that ask again as soon as they are answered."""
    until, done = time.perf_counter() + seconds, 0

    async def ask(n: int) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await call(n)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(ask(n) for n in range(callers)))
    return done / (time.perf_counter() - began)


async def cpu_per_item(make: Any) -> float:
    """Microseconds of CPU for an item, with a model that takes none."""
    call, end = make(nothing)
    found = []
    for _ in range(5):
        began = time.process_time()
        await asyncio.gather(*(_many(call, 200) for _ in range(128)))
        found.append((time.process_time() - began) / (128 * 200) * 1e6)
    await end()
    return statistics.median(found)


async def _many(call: Call, count: int) -> None:
    for n in range(count):
        await call(n)


async def share(make: Any, callers: int) -> float:
    """Percent of what the model could do."""
    best = await ideal(min(callers, SIZE))
    call, end = make(Device())
    await closed_loop(call, callers, 0.3)
    found = await closed_loop(call, callers, SECONDS)
    await end()
    return 100 * found / best


async def lone(make: Any) -> float:
    """Milliseconds that are added for a caller who is alone (median)."""
    device = Device()
    call, end = make(device)
    await call(0)
    bare_times, times = [], []
    for _ in range(100):
        began = time.perf_counter()
        await device([0])
        bare_times.append(time.perf_counter() - began)
        began = time.perf_counter()
        await call(0)
        times.append(time.perf_counter() - began)
    await end()
    return 1000 * (statistics.median(times) - statistics.median(bare_times))


async def poisson(make: Any, load: float) -> float:
    """Milliseconds until the answer at so much of what the model can do (p90)."""
    best = await ideal(SIZE)
    call, end = make(Device())
    chance, times = random.Random(1), []

    async def ask() -> None:
        began = time.perf_counter()
        await call(0)
        times.append(time.perf_counter() - began)

    tasks, at, until = [], time.perf_counter(), time.perf_counter() + SECONDS
    while at < until:
        at += chance.expovariate(load * best)
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        tasks.append(asyncio.ensure_future(ask()))
    _, late = await asyncio.wait(tasks, timeout=2 * SECONDS)
    for task in late:
        task.cancel()
    await end()
    return float("inf") if late else 1000 * statistics.quantiles(times, n=10)[-1]


async def idle(make: Any) -> float:
    """Percent of a core while nothing happens."""
    call, end = make(Device())
    await call(0)
    await asyncio.sleep(0.2)
    began = time.process_time()
    await asyncio.sleep(SECONDS)
    found = (time.process_time() - began) / SECONDS
    await end()
    return 100 * found


async def innocent(make: Any) -> float:
    """Percent of the innocent whose call fails when one caller in a hundred is bad."""
    call, end = make(Device(), isolate=True) if make is turnwise else make(Device())
    asked = failed = 0

    async def ask(n: int) -> None:
        nonlocal asked, failed
        for _ in range(20):
            if n == 0:
                with suppress(Exception):
                    await call("poison")
                continue
            asked += 1
            try:
                await asyncio.wait_for(call(n), 5)
            except Exception:
                failed += 1

    await asyncio.gather(*(ask(n) for n in range(100)))
    with suppress(Exception):
        await end()
    return 100 * failed / asked


async def unanswered(make: Any) -> float:
    """Percent of callers without an answer when 30 % of the others give up."""
    call, end = make(Device())
    chance = random.Random(2)
    waiting: list[asyncio.Task[Any]] = []

    async def ask(n: int) -> None:
        task = asyncio.ensure_future(call(n))
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.01)
            task.cancel()
            with suppress(BaseException):
                await task
        else:
            waiting.append(task)
            await asyncio.wait({task}, timeout=3)

    for _ in range(10):
        await asyncio.gather(*(ask(n) for n in range(100)))
    left = sum(not task.done() or task.cancelled() for task in waiting)
    for task in waiting:
        task.cancel()
    with suppress(Exception):
        await asyncio.wait_for(end(), 5)
    return 100 * left / len(waiting)


ROWS: dict[str, tuple[Callable[[Any], Coroutine[Any, Any, float]], str]] = {
    "µs of CPU an item": (cpu_per_item, "≤ 2"),
    "% of the ideal, 256 callers": (partial(share, callers=256), "≥ 97"),
    "% of the ideal, 24 callers": (partial(share, callers=24), "≥ 97"),
    "ms added for a lone caller": (lone, "≤ 0.1"),
    "ms to the answer at 30 % load (p90)": (partial(poisson, load=0.3), ""),
    "… at 60 %": (partial(poisson, load=0.6), ""),
    "… at 90 %": (partial(poisson, load=0.9), ""),
    "% of a core while idle": (idle, ""),
    "% of the innocent failed, 1 in 100 bad": (innocent, "0"),
    "% unanswered, 30 % cancelled": (unanswered, "0"),
}


def main() -> None:
    os.sched_setaffinity(0, {min(1, (os.cpu_count() or 1) - 1)})
    if len(sys.argv) == 3:  # one field of the table, in a process of its own
        logging.disable()  # some tell of every fault that they have
        print(measured(*sys.argv[1:]), flush=True)
        os._exit(0)
    table = Table("measured", *CONTESTANTS, "aim", title="Batchers, side by side")
    for row, (_, aim) in ROWS.items():
        found = [field(row, contestant) for contestant in CONTESTANTS]
        table.add_row(row, *found, aim)
    Console(width=120).print(table)


def field(row: str, contestant: str) -> str:
    command = [sys.executable, __file__, row, contestant]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def measured(row: str, contestant: str) -> str:
    try:
        found = asyncio.run(_limited(ROWS[row][0](CONTESTANTS[contestant])))
    except Exception as error:
        return type(error).__name__
    return f"{found:.3g}"


async def _limited(work: Coroutine[Any, Any, float]) -> float:
    return await asyncio.wait_for(work, 60)


if __name__ == "__main__":
    main()
