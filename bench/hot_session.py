"""One session that four processes write to at once: python bench/hot_session.py

One holds the claim and streams; three submit messages without a pause. What counts is how long a
delta takes to be written.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from measure import free_port
from turnwise.conversation import Message
from turnwise.stores.open import open_store
from turnwise.stores.records import Submission
from turnwise.testing.conformance.acting import delta, desk

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from postgres_servers import PostgresServer
from redis_servers import RedisServer

TEXT = Message("hello", role="user").encode()
SECONDS = 4.0


async def submit(url: str, until: float) -> None:
    store = open_store(url)
    await store.open()
    while time.time() < until:
        await store.submit(Submission("hot", TEXT, limit=1_000_000))
    await store.close()


async def stream(url: str) -> list[float]:
    """Seconds that each delta took, in order of their sizes."""
    store = open_store(url)
    await store.open()
    await store.submit(Submission("hot", TEXT, create=True, ttl=1e5))
    (claim,) = await store.claim(desk(lease=60.0), 1)
    until = time.time() + 2.0 + SECONDS
    command = (sys.executable, __file__, url, str(until + 0.5))
    others = [await asyncio.create_subprocess_exec(*command) for _ in range(3)]
    await asyncio.sleep(2.0)
    took = []
    while time.time() < until:
        began = time.perf_counter()
        await store.append(claim, [delta(1, 1, "word ")])
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    for other in others:
        await other.wait()
    await store.close()
    return sorted(took)


def show(name: str, took: list[float]) -> None:
    p50, p99 = (1000 * took[int(len(took) * part)] for part in (0.5, 0.99))
    print(f"{name}: a delta takes {p50:.1f} ms (p50), {p99:.1f} ms (p99)")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        show("SQLite", asyncio.run(stream(f"sqlite:///{folder}/hot.db")))
        redis = RedisServer(Path(folder) / "redis", free_port())
        redis.start()
        show("Redis", asyncio.run(stream(redis.url)))
        redis.kill()
    postgres = PostgresServer()
    show("PostgreSQL", asyncio.run(stream(postgres.url)))
    postgres.stop()


if len(sys.argv) > 1:
    asyncio.run(submit(sys.argv[1], float(sys.argv[2])))
else:
    main()
