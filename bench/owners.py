"""What an owner costs others, and their list themselves: python bench/owners.py

First the list: 50 sessions of an owner who has a hundred, and of one who has a hundred thousand.
Then a flood: a hundred owners with one turn each, without and with one who has a thousand before
them, on two workers of five turns each; a turn takes a second.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from measure import free_port
from turnwise import Bot, Runtime, Turn
from turnwise.conversation import Message
from turnwise.settings import Settings
from turnwise.stores.base import Store
from turnwise.stores.open import open_store
from turnwise.stores.records import Submission

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from postgres_servers import PostgresServer
from redis_servers import RedisCluster, RedisServer

FEW, MANY, PAGE = 100, 100_000, 50
TIMES = 200
OWNERS, FLOOD, WORKERS, SLOTS, SECONDS = 100, 1000, 2, 5, 1.0
TEXT = Message("hello", role="user").encode()


@asynccontextmanager
async def kinds() -> AsyncIterator[dict[str, str]]:
    """The URLs of a store of each kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = RedisServer(folder / "redis", free_port())
        cluster = RedisCluster(folder / "cluster", [free_port() for _ in range(3)])
        redis.start()
        cluster.start()
        postgres = PostgresServer()
        try:
            yield {
                "SQLite": f"sqlite:///{folder}/owners.db",
                "Redis": redis.url,
                "Redis Cluster": cluster.url,
                "PostgreSQL": postgres.url,
            }
        finally:
            postgres.stop()
            for node in (redis, *cluster.nodes):
                node.kill()


# The list


async def list_row(url: str) -> tuple[float, float, float]:
    """Milliseconds of a page of many, of a page of few, and the median of their ratios."""
    store = open_store(url)
    await store.open()
    for owner, count in (("few", FEW), ("many", MANY)):
        for start in range(0, count, 200):
            made = range(start, min(start + 200, count))
            names = [f"{owner}-{i:06}" for i in made]
            await asyncio.gather(*(store.create(name, ttl=1e7, owner=owner) for name in names))
    found = []
    for _ in range(TIMES):
        found.append((await _page(store, "many"), await _page(store, "few")))
    await store.close()
    middle = statistics.median
    return middle(a for a, _ in found), middle(b for _, b in found), middle(a / b for a, b in found)


async def _page(store: Store, owner: str) -> float:
    began = time.perf_counter()
    page = await store.owned(owner, before=None, limit=PAGE)
    assert len(page) == PAGE
    return (time.perf_counter() - began) * 1000


# The flood


async def p95(url: str, name: str, flood: int) -> float:
    """Seconds, by the 95th of a hundred, until an owner's turn starts."""
    store = open_store(url)
    await store.open()
    sessions = [(f"{name}-f{i}", f"{name}-flood") for i in range(flood)]
    mine = [(f"{name}-o{i}", f"{name}-{i}") for i in range(OWNERS)]
    for session, owner in sessions + mine:
        wish = Submission(session, TEXT, create=True, owner=owner, ttl=1e6)
        await store.submit(wish)
    command = (sys.executable, __file__, url)
    workers = [await asyncio.create_subprocess_exec(*command) for _ in range(WORKERS)]
    try:
        started: dict[str, float] = {}
        while len(started) < OWNERS:
            await asyncio.sleep(0.5)
            for session, _ in mine:
                turn = None if session in started else await store.turn(session, 1)
                if turn is not None and turn.started_at is not None:
                    started[session] = turn.started_at
        first = min([*started.values(), *await _first_of(store, sessions[:20])])
    finally:
        for worker in workers:
            worker.kill()
            await worker.wait()
    for session, _ in sessions:
        await store.delete(session)
    await store.close()
    return sorted(at - first for at in started.values())[int(OWNERS * 0.95) - 1]


async def _first_of(store: Store, sessions: list[tuple[str, str]]) -> list[float]:
    turns = [await store.turn(session, 1) for session, _ in sessions]
    return [turn.started_at for turn in turns if turn is not None and turn.started_at is not None]


async def work(url: str) -> None:
    """Answer turns of a second, until killed."""

    async def reply(turn: Turn) -> str:
        await asyncio.sleep(SECONDS)
        return turn.text

    settings = Settings(_env_file=None, concurrency=SLOTS, log_level="warning")
    async with Runtime(Bot(reply), url, settings=settings):
        await asyncio.Event().wait()


async def main() -> None:
    lists = Table("ms for a page of 50", f"of {MANY:,}", f"of {FEW}", "ratio", "aim")
    floods = Table("s until an owner's turn starts, p95", "flooded", "not", "later by", "aim")
    async with kinds() as stores:
        for kind, url in stores.items():
            many, few, ratio = await list_row(url)
            lists.add_row(kind, f"{many:.2f}", f"{few:.2f}", f"{ratio:.2f}", "≤ 1.5")
        for kind, url in stores.items():
            calm, flooded = await p95(url, "calm", 1), await p95(url, "flooded", FLOOD)
            row = (f"{flooded:.2f}", f"{calm:.2f}", f"{flooded - calm:.2f}", f"≤ {SECONDS:g}")
            floods.add_row(kind, *row)
    for table in (lists, floods):
        Console(width=100).print(table)


if len(sys.argv) > 1:
    asyncio.run(work(sys.argv[1]))
else:
    asyncio.run(main())
