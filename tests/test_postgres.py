"""What the PostgreSQL store says beyond the promise of every store."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import turnwise.stores.postgres
from lossy import converse
from postgres_servers import PostgresServer
from proxies import Cutter
from turnwise.errors import ConfigurationError, StoreUnavailable
from turnwise.gateway.hub import Hub
from turnwise.stores import remote
from turnwise.stores.notices import Appended, Moved, Notice, Ready, Signal
from turnwise.stores.open import open_store
from turnwise.stores.postgres import PostgresStore
from turnwise.stores.postgres.connections import PLANS
from turnwise.stores.records import Submission
from turnwise.testing.conformance.acting import answer, desk, question, texts


def fresh(server: PostgresServer) -> str:
    """The URL of an empty store."""
    return f"{server.url}?schema=t{uuid.uuid4().hex}"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may break."""
    server = PostgresServer()
    yield server
    server.stop()


@pytest.mark.parametrize("cuts", [1, 2])
async def test_every_act_whose_answer_is_lost_is_done_once(
    postgres_server: PostgresServer,
    cuts: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The line is cut after the request and before the answer, at each act of a conversation."""
    # A busy machine may hold the server up for longer than a person would wait.
    monkeypatch.setattr(remote, "PATIENCE", 30.0)
    url = fresh(postgres_server)
    async with Cutter(postgres_server.port) as cutter:
        through = url.replace(str(postgres_server.port), str(cutter.port))
        async with opened(f"{through}&listen={postgres_server.url}") as store:

            async def lossy(act: Awaitable[Any]) -> Any:
                cutter.cut = cuts
                result = await act
                cutter.cut = 0
                return result

            heard: list[Notice] = []
            store.listen(heard.append)

            await converse(store, lossy)
            assert Moved("s") in heard, "what nobody was told of is looked for"


async def test_what_others_write_is_heard_soon(postgres_server: PostgresServer) -> None:
    """Another process's events reach a reader here by a notice, its signals too."""
    url = fresh(postgres_server)
    async with opened(url) as here, opened(url) as there:
        await there.create("s", name=None, metadata=b"{}", ttl=100.0)
        heard: asyncio.Queue[Notice] = asyncio.Queue()
        here.listen(heard.put_nowait)
        hub = Hub(here)
        with hub.join("s", 0) as reader:
            async with asyncio.timeout(5):
                await there.submit(Submission("s", question("hi")))
                events = await reader.read()
                assert [event.type for event in events] == ["turn.queued"]
                while await heard.get() != Ready():
                    pass
                await there.delete("s")
                assert await reader.read() == []
            assert reader.closed == "gone"
        while not heard.empty():
            notice = heard.get_nowait()
            assert isinstance(notice, Moved | Ready | Signal | Appended)
        hub.close()


def test_no_notice_is_sent_in_a_transaction_that_writes() -> None:
    """It would hold a lock on the whole database through its fsync: the one that sends is alone."""
    folder = Path(turnwise.stores.postgres.__file__).parent
    sending = [path.name for path in folder.iterdir() if path.suffix in (".py", ".sql")
               and re.search(r"pg_notify|NOTIFY ", path.read_text())]  # fmt: skip
    assert sending == ["hints.py"]


async def test_groups_share_a_commit(postgres_server: PostgresServer) -> None:
    """Acts of many sessions that wait at the same time are one statement and one transaction."""
    url = fresh(postgres_server)
    sizes: list[int] = []
    store = PostgresStore(url, observe=lambda batch: sizes.append(batch.size))
    await store.open()
    wishes = [Submission(f"s{i}", question("hi"), create=True, ttl=100.0) for i in range(64)]
    await asyncio.gather(*(store.submit(wish) for wish in wishes))
    assert sum(sizes) == 64
    assert max(sizes) >= 32
    await store.close()


async def test_connections_do_not_grow_with_sessions(own_server: PostgresServer) -> None:
    """However many sessions, readers and acts there are, a process has at most six."""
    async with opened(own_server.url) as store:
        hub = Hub(store)
        readers = [hub.join(f"s{i}", 0) for i in range(200)]
        wishes = [Submission(f"s{i}", question("hi"), create=True, ttl=100.0) for i in range(200)]
        await asyncio.gather(*(store.submit(wish) for wish in wishes))
        await asyncio.gather(*(reader.read(5.0) for reader in readers))
        await asyncio.gather(*(store.history(f"s{i}") for i in range(200)))
        db = await asyncpg.connect(own_server.url)
        count = await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'turnwise'"
        )
        await db.close()
        assert count <= 6
        for reader in readers:
            reader.close()
        hub.close()


async def test_a_server_that_is_killed(own_server: PostgresServer) -> None:
    """While it is gone, acts fail within some seconds; when it is back, what was acknowledged is
    there and everything goes on."""
    async with opened(own_server.url) as store:
        await store.submit(Submission("s", question("kept"), create=True, ttl=100.0))
        own_server.kill()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(StoreUnavailable):
            await store.submit(Submission("s", question("lost")))
        assert loop.time() - began < 4.0
        with pytest.raises(StoreUnavailable):
            await store.ping()
        await asyncio.to_thread(own_server.start)
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.ping()
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
        assert texts([(await store.history("s")).open[0].message_json or b""]) == ["kept"]
        (claim,) = await store.claim(desk(), 5)
        await store.finish(claim, answer("ok"))


async def test_facts_and_warnings(own_server: PostgresServer) -> None:
    """`turnwise check` says how durable it is, and warns where it is not."""
    async with opened(own_server.url) as store:
        facts = await store.facts()
        assert facts["store"].startswith("PostgreSQL ")
        assert "survives a power cut" in facts["durability"]
        assert facts["other processes"] == "by notices"
    await own_server.execute("ALTER SYSTEM SET synchronous_commit = off")
    await own_server.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)
    async with opened(own_server.url) as store:
        assert "last second is lost" in (await store.facts())["warning"]


async def test_a_newer_store_is_left_alone(postgres_server: PostgresServer) -> None:
    """A version that does not know its tables says so."""
    url = fresh(postgres_server)
    async with opened(url):
        pass
    schema = url.rpartition("=")[2]
    await postgres_server.execute(f"UPDATE {schema}.fact SET value = '99' WHERE name = 'schema'")
    with pytest.raises(ConfigurationError, match="newer"):
        await PostgresStore(url).open()


async def test_two_processes_start_at_once(postgres_server: PostgresServer) -> None:
    """The schema is made once, and both have the same secret."""
    url = fresh(postgres_server)
    stores = [PostgresStore(url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({await store.secret() for store in stores}) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_nobody_there() -> None:
    """One sentence, and no password in it."""
    store = open_store("postgresql://u:hunter2@127.0.0.1:1/x")
    with pytest.raises(StoreUnavailable) as caught:
        await store.open()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("more", ["schema=a-b", "schema=", "schema=a;drop"])
def test_bad_urls(more: str) -> None:
    """A schema is a plain name."""
    with pytest.raises(ConfigurationError):
        PostgresStore(f"postgresql://x/y?{more}")


async def test_plans_do_not_degrade(postgres_server: PostgresServer) -> None:
    """A statement that was prepared on empty tables goes by the indexes when they are full and
    nobody has analyzed them."""
    url = fresh(postgres_server)
    schema = url.rpartition("=")[2]
    async with opened(url) as store:
        await store.submit(Submission("first", question("hi"), create=True, ttl=1e6))
        await postgres_server.execute(
            f"INSERT INTO {schema}.header (id, version, body) SELECT ('x' || n)::bytea, '1.x', '[]'"
            f" FROM generate_series(1, 20000) n"
        )
        db = await asyncpg.connect(postgres_server.url)
        read = re.sub(r"\s+", " ", store.driver.sql["commit"])
        for name, value in PLANS.items():
            await db.execute(f"SET {name} = '{value}'")
        await db.execute(f"PREPARE p AS {read}")
        nothing = "{}"
        arguments = ", ".join(
            [f"'{nothing}'"] * 16 + ["0"] + [f"'{nothing}'"] * 6 + ["50"] + [f"'{nothing}'"] * 18
        )
        plan = await db.fetch(f"EXPLAIN EXECUTE p({arguments})")
        await db.close()
        text = "\n".join(row[0] for row in plan)
        assert f"Seq Scan on {schema}" not in text
        assert not re.search(r"Seq Scan on (header|look|entry|owned)", text), text
