"""Every store keeps the one promise, and each what its own page says beyond it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from postgres_servers import PostgresServer
from redis_servers import RedisCluster, RedisServer
from turnwise import Message
from turnwise.errors import ConfigurationError
from turnwise.stores.base import Store
from turnwise.stores.memory import MemoryStore
from turnwise.stores.notices import Appended, Notice, Ready, Signal
from turnwise.stores.postgres import PostgresStore
from turnwise.stores.records import Submission
from turnwise.stores.redis import RedisStore
from turnwise.stores.sqlite import SQLiteStore, engine
from turnwise.testing.conformance import StoreConformance
from turnwise.testing.conformance.acting import desk


class Clock:
    """Seconds since 1970 that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class TestMemoryConformance(StoreConformance):
    """The whole suite in memory."""

    @pytest.fixture
    async def store(self) -> Store:
        self.clock = Clock()
        return MemoryStore(clock=self.clock)

    async def pass_time(self, store: Store, seconds: float) -> None:
        self.clock.now += seconds


class TestSQLiteConformance(StoreConformance):
    """The whole suite on a real file."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        self.clock = Clock()
        store = SQLiteStore(tmp_path / "test.db", clock=self.clock)
        await store.open()
        yield store
        await store.close()

    async def pass_time(self, store: Store, seconds: float) -> None:
        self.clock.now += seconds


class TestSQLiteInCompanyConformance(TestSQLiteConformance):
    """The same while others write too, when COMMIT runs on the loop if the disk is quick."""

    @pytest.fixture(autouse=True)
    def company(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "COMPANY", math.inf)


class Shift:
    """Seconds added to Redis's clock."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class TestPostgresConformance(StoreConformance):
    """The whole suite on a real server; each test has a schema of its own."""

    @pytest.fixture
    async def store(self, postgres_server: PostgresServer) -> AsyncIterator[Store]:
        self.shift = Shift()
        url = f"{postgres_server.url}?schema=t{uuid.uuid4().hex}"
        store = PostgresStore(url, shift=self.shift)
        await store.open()
        yield store
        await store.close()

    async def pass_time(self, store: Store, seconds: float) -> None:
        self.shift.seconds += seconds


class RedisConformance(StoreConformance):
    """The whole suite on a real server; each test has a prefix of its own."""

    @pytest.fixture
    async def store(self, server: RedisServer | RedisCluster) -> AsyncIterator[Store]:
        self.shift = Shift()
        store = RedisStore(f"{server.url}?prefix={uuid.uuid4().hex}", shift=self.shift)
        await store.open()
        yield store
        await store.close()

    async def pass_time(self, store: Store, seconds: float) -> None:
        self.shift.seconds += seconds


class TestRedisConformance(RedisConformance):
    """On a single Redis."""

    @pytest.fixture
    def server(self, redis_server: RedisServer) -> RedisServer:
        return redis_server


class TestRedisClusterConformance(RedisConformance):
    """On a Cluster of three masters."""

    @pytest.fixture
    def server(self, redis_cluster: RedisCluster) -> RedisCluster:
        return redis_cluster


# What the SQLite store says beyond the promise


async def test_a_slow_disk_does_not_hold_up_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In company COMMIT runs on the loop until the disk turns out slow; then a thread waits."""
    store = SQLiteStore(tmp_path / "disk.db")
    await store.open()
    monkeypatch.setattr(engine, "COMPANY", math.inf)
    where: list[int] = []
    end = store._engine._end_transaction

    def commit() -> None:
        where.append(threading.get_ident())
        end()
        time.sleep(0.02)  # so long the disk takes

    monkeypatch.setattr(store._engine, "_end_transaction", commit)
    await store.create("s", name=None, metadata=b"{}", ttl=100.0)
    store._engine._ended = 0.0  # long ago
    await store.create("t", name=None, metadata=b"{}", ttl=100.0)
    assert where[0] == threading.get_ident()
    assert where[1] != threading.get_ident()
    await store.close()


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """An older Turnwise refuses it in words and changes nothing."""
    import apsw

    path = tmp_path / "newer.db"
    with apsw.Connection(str(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer"):
        await SQLiteStore(path).open()


async def test_the_schema_is_made_once_and_kept(tmp_path: Path) -> None:
    """Opening again finds what was written; a store can be opened, closed and opened."""
    store = SQLiteStore(tmp_path / "again.db")
    for n in range(3):
        await store.open()
        await store.create(f"s{n}", name=None, metadata=b"{}", ttl=100.0)
        assert len(await store.sessions()) == n + 1
        await store.close()


async def test_a_broken_act_breaks_no_other(tmp_path: Path) -> None:
    """Acts that share a transaction with one that fails unexpectedly are done all the same."""
    store = SQLiteStore(tmp_path / "broken.db")
    await store.open()
    bad: Any = object()
    results = await asyncio.gather(
        store.create("a", name=None, metadata=b"{}", ttl=100.0),
        store.create("b", name=bad, metadata=b"{}", ttl=100.0),
        store.create("c", name=None, metadata=b"{}", ttl=100.0),
        return_exceptions=True,
    )
    assert isinstance(results[1], Exception)
    assert [session.id for session in await store.sessions()] == ["a", "c"]
    await store.close()


async def test_a_listener_that_fails_hurts_nobody(tmp_path: Path) -> None:
    """What is committed stays committed, and the other listeners hear of it."""
    store = SQLiteStore(tmp_path / "listener.db")
    await store.open()
    heard: list[Notice] = []

    def fail(_: Notice) -> None:
        raise RuntimeError("no")

    store.listen(fail)
    store.listen(heard.append)
    wish = Submission("s", Message("hi", role="user").encode(), create=True, ttl=100.0)
    assert (await store.submit(wish)).created
    assert heard
    assert len((await store.history("s")).open) == 1
    await store.close()


async def test_what_others_write_is_heard_soon(tmp_path: Path) -> None:
    """Another process's commit is heard within some tens of milliseconds, its signals too; of
    sessions that nobody follows here only that a turn may be waiting."""
    here, there = SQLiteStore(tmp_path / "two.db"), SQLiteStore(tmp_path / "two.db")
    await here.open()
    await there.open()
    heard: asyncio.Queue[Notice] = asyncio.Queue()
    here.listen(heard.put_nowait)
    hi = Message("hi", role="user").encode()
    async with asyncio.timeout(10):
        await there.submit(Submission("not followed", hi, create=True, ttl=100.0))
        assert await heard.get() == Ready()
        here.follow("s")
        await there.submit(Submission("s", hi, create=True, ttl=100.0))
        appended = await heard.get()
        assert isinstance(appended, Appended)
        assert [event.type for event in appended.events] == ["turn.queued"]
        assert await heard.get() == Ready()
        await there.delete("s")
        assert await heard.get() == Signal("gone", "s")
    await here.close()
    await there.close()


async def test_recreated_sessions_do_not_open_to_old_tokens(tmp_path: Path) -> None:
    """A session of the same name is another one: its generation is above, its numbers go on."""
    clock = Clock()
    store = SQLiteStore(tmp_path / "names.db", clock=clock)
    await store.open()
    first = await store.create("user 42", name=None, metadata=b"{}", ttl=10.0)
    await store.submit(Submission("user 42", Message("hi", role="user").encode()))
    await store.cancel("user 42", 1)
    clock.now += 11.0
    second = await store.create("user 42", name=None, metadata=b"{}", ttl=10.0)
    assert second.generation > first.generation
    assert (second.last_event, second.turns, second.messages) == (2, 0, 0)
    await store.delete("user 42")
    clock.now += 1.0
    third = await store.create("user 42", name=None, metadata=b"{}", ttl=10.0)
    assert third.generation > second.generation
    await store.close()


async def test_one_file_under_two_names(tmp_path: Path) -> None:
    """Through a symbolic link the processes still see each other live."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    here, there = SQLiteStore(tmp_path / "real/t.db"), SQLiteStore(tmp_path / "link/t.db")
    await here.open()
    await there.open()
    await here.submit(Submission("s", Message("hi").encode(), create=True, ttl=100.0))
    assert len(await here.claim(desk("w1"), 10)) == 1
    assert await there.claim(desk("w2"), 10) == []
    await here.close()
    async with asyncio.timeout(10):
        while not await there.claim(desk("w2", lease=1.0), 10):
            await asyncio.sleep(0.05)  # it looks twice a second
    await there.close()
