"""Speed, side by side: `make bench`.

Each row sets Turnwise beside a bare server on the same core, under the same load from the same
client on the other core, in pairs one after the other; what counts is the ratio, and of several
pairs the median.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import fastapi
import uvloop
from rich.console import Console
from rich.table import Table

from client import Connection, Talker
from cost_rows import bench_costs, bench_postgres, bench_profile
from door_rows import bench_doors
from measure import (
    CLIENT_CORE,
    CONNECTIONS,
    PAIRS,
    Row,
    bare_words,
    echo_rate,
    first_delta,
    live_words,
    pairs,
    replayed_deltas,
    server,
    talk,
    turn_rate,
)
from reader_rows import bench_processes, bench_readers
from redis_rows import bench_redis
from script_rows import bench_scripts


async def bench_turns() -> AsyncIterator[Row]:
    with server("echo") as echo, server("turns", factory=True) as ours:
        young = await talk(ours, 10)
        found = await pairs(lambda: turn_rate(young), lambda: echo_rate(echo))
        yield Row("turns/s, beside a bare FastAPI echo", *found, "≥ 0.50")

        old = await talk(ours, 1000)
        fresh = [await talk(ours, 10) for _ in range(PAIRS + 1)]

        async def at_ten() -> float:
            return await turn_rate(fresh.pop(), 0.5)

        found = await pairs(lambda: turn_rate(old, 0.5), at_ten)
        yield Row("turns/s at turn 1,000, beside turn 10", *found, "≥ 0.90")

        long, short = [await Talker.make(ours)], [await Talker.make(ours)]
        for _ in range(50_000):
            await long[0].turn()
        found = await pairs(lambda: turn_rate(long), lambda: turn_rate(short))
        yield Row("turns/s after 100,000 messages, beside a new session", *found, "≥ 0.90")

    with server("echo") as echo, server("mixed", factory=True) as ours:
        some = await talk(ours, 10)
        found = await pairs(lambda: turn_rate(some), lambda: echo_rate(echo))
        yield Row("turns/s, one in five streams 200 words, beside the echo", *found, "")


async def bench_streams() -> AsyncIterator[Row]:
    with server("bare") as bare, server("deltas", factory=True) as ours:
        talker = await Talker.make(ours)
        mine, theirs = await first_delta(talker, bare)
        added = (mine - theirs) * 1000
        row = "ms to the first delta, idle (p50; the difference)"
        yield Row(row, mine * 1000, theirs * 1000, added, "< 5")

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
    table = Table(
        "measured",
        "Turnwise",
        "beside",
        "ratio",
        "aim",
        title=f"Turnwise, side by side with FastAPI {fastapi.__version__}",
    )
    with console.status("Measuring, which takes some minutes") as status:
        for bench in (
            bench_turns(),
            bench_costs(),
            bench_profile(),
            bench_postgres(),
            bench_streams(),
            bench_readers(),
            bench_processes(),
            bench_redis(),
            bench_scripts(),
            bench_doors(),
        ):
            async for row in bench:
                status.update(f"Measured: {row.measured}")
                table.add_row(
                    row.measured, show(row.ours), show(row.beside), f"{row.ratio:.2f}", row.aim
                )
    console.print(table)


def show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    uvloop.run(main())
