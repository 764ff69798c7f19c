"""What stores do besides turns: sweeps that keep up, limits, jumping clocks, files that shrink."""

from __future__ import annotations

import asyncio
import logging
import uuid
from pathlib import Path

import apsw
import pytest

from postgres_servers import PostgresServer
from redis_servers import RedisServer
from turnwise import Bot, Runtime, Turn, TurnError
from turnwise.errors import BadOutput, Damaged
from turnwise.gateway.hub import Hub
from turnwise.settings import Settings
from turnwise.stores.base import Store
from turnwise.stores.memory import MemoryStore
from turnwise.stores.postgres import PostgresStore
from turnwise.stores.records import Submission
from turnwise.stores.redis import RedisStore
from turnwise.stores.sqlite import SQLiteStore
from turnwise.stores.sqlite import engine as engine_module
from turnwise.stores.steady_clock import ACCEPT, SteadyClock
from turnwise.testing import talk
from turnwise.testing.conformance.acting import answer, delta, desk, question

SETTINGS = Settings(_env_file=None)


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind, not opened yet."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SQLiteStore(tmp_path / "s.db")
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return RedisStore(f"{redis.url}?prefix={uuid.uuid4().hex}")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return PostgresStore(f"{server.url}?schema=t{uuid.uuid4().hex}")


async def streamed(store: Store, session: str, deltas: int) -> None:
    """One finished turn with so many deltas, each an entry of its own."""
    await store.submit(Submission(session, question("hi"), create=True, ttl=1e6))
    (claim,) = await store.claim(desk(), 5)
    for _ in range(deltas):
        await store.append(claim, [delta(claim.turn, 1, "word " * 20)])
    await store.finish(claim, answer("ok"))


async def test_one_sweep_removes_all_that_is_overdue(store: Store) -> None:
    """However much it is; the turn stays, a cursor before it gets a gap, one behind it goes on."""
    await store.open()
    for i in range(3):
        await streamed(store, f"s{i}", 900)
    await store.sweep(retention=-1.0)
    for i in range(3):
        log = await store.log(f"s{i}", 0, limit=5000)
        assert log is not None
        assert (log.floor, log.last) == (902, 904)
        assert [event.type for event in log.events] == ["message", "turn.completed"]
        record = await store.turn(f"s{i}", 1)
        assert record is not None
        assert record.reply is not None
        assert record.reply.text == "ok"
    await store.close()


async def test_a_turn_before_the_horizon_is_told_from_its_record(store: Store) -> None:
    """Who follows one turn whose deltas are gone gets a gap, its message and its end."""
    await store.open()
    await streamed(store, "s", 20)
    await streamed(store, "s", 20)
    await store.sweep(retention=-1.0)
    hub = Hub(store)
    for n, last in ((1, 24), (2, 48)):
        with hub.join("s", 0, turn=n) as reader:
            async with asyncio.timeout(10):
                found = [event async for event in reader]
        assert [event.type for event in found] == ["gap", "message", "turn.completed"]
        assert found[-1].id == last
    hub.close()
    await store.close()


async def test_a_sweep_gives_way(tmp_path: Path) -> None:
    """While a sweep removes much, another act waits for a slice of it only."""
    store = SQLiteStore(tmp_path / "s.db")
    await store.open()
    await streamed(store, "long", 5000)
    sweeping = asyncio.ensure_future(store.sweep(retention=-1.0))
    done = 0
    while not sweeping.done():
        await store.submit(Submission(f"s{done}", question("hi"), create=True, ttl=1e6))
        done += 1
    assert done >= 4
    await store.close()


async def test_a_file_gives_its_space_back(tmp_path: Path) -> None:
    """What a sweep has removed makes the file smaller."""
    store = SQLiteStore(tmp_path / "s.db")
    await store.open()
    await asyncio.gather(*(store.create(f"s{i}", name=None, metadata=b'{"x":"%b"}' % (b"y" * 4000),
                                        ttl=1e6) for i in range(3000)))  # fmt: skip
    with apsw.Connection(str(store.path)) as db:
        before = db.pragma("page_count")
    for i in range(3000):
        await store.delete(f"s{i}")
    await store.sweep(retention=-1.0)
    with apsw.Connection(str(store.path)) as db:
        assert db.pragma("page_count") < before / 2
    await store.close()


@pytest.mark.parametrize("act", ["reset", "delete"])
async def test_a_long_session_goes_in_slices(store: Store, act: str) -> None:
    """At once nothing of it is seen, and the rest is removed by sweeps; its key stays known after a
    reset."""
    await store.open()
    for i in range(700):
        wish = Submission(
            "s", question("secret"), create=True, ttl=1e6, key=f"k{i}", fingerprint="f"
        )
        await store.submit(wish)
        (claim,) = await store.claim(desk(), 5)
        await store.finish(claim, answer("secret"))
    if act == "delete":
        assert await store.delete("s")
        assert await store.session("s") is None
    else:
        assert (await store.reset("s")).messages == 0
        assert (await store.history("s")).messages_json == []
        record = await store.turn_by_key("s", "k3")
        assert record is not None
        assert (record.n, record.status, record.message_json) == (4, "completed", None)
    await store.sweep(retention=1e9)
    if act == "reset":
        record = await store.turn_by_key("s", "k699")
        assert record is not None
        assert (record.n, list(record.replies_json)) == (700, [])
    await store.submit(Submission("s", question("new"), create=True, ttl=1e6))
    assert len((await store.history("s")).open) == 1
    await store.close()


async def test_deleted_text_is_nowhere_in_the_file(tmp_path: Path) -> None:
    """Not in a page that is free, and not in the write-ahead log."""
    store = SQLiteStore(tmp_path / "s.db")
    await store.open()
    for i in range(600):
        await store.submit(Submission("s", question(f"secret {i}"), create=True, ttl=1e6))
        (claim,) = await store.claim(desk(), 5)
        await store.finish(claim, answer("secret answer"))
    await store.delete("s")
    await store.sweep(retention=1e9)
    await store.close()
    assert b"secret" not in store.path.read_bytes()


async def test_a_state_has_a_limit() -> None:
    """A turn whose state is too large fails with a code; what was kept before stays."""

    async def reply(turn: Turn) -> str:
        turn.state["x"] = "y" * int(turn.text)
        return "ok"

    async with talk(Bot(reply, max_state=1000)) as say:
        await say("500")
        with pytest.raises(TurnError) as caught:
            await say("2000")
        assert caught.value.code == "state_too_large"
        assert "1,000" in str(caught.value)
        async with say.runtime.session("test") as session:
            assert len(session.state["x"]) == 500
        with pytest.raises(BadOutput):
            async with say.runtime.session("test") as session:
                session.state["x"] = "y" * 2000
        async with say.runtime.session("test") as session:
            assert len(session.state["x"]) == 500


def test_a_clock_that_jumps(caplog: pytest.LogCaptureFixture) -> None:
    """A jump is ignored while it is short, said once, and believed when it lasts."""
    wall, even = [1_000_000.0], [50.0]
    clock = SteadyClock(lambda: wall[0], lambda: even[0])

    def pass_time(seconds: float) -> float:
        wall[0] += seconds
        even[0] += seconds
        return clock()

    assert pass_time(10.0) == 1_000_010.0
    wall[0] += 90 * 86400.0
    with caplog.at_level(logging.WARNING):
        assert clock() == 1_000_010.0
        assert pass_time(5.0) == 1_000_015.0
    assert len(caplog.records) == 1
    wall[0] -= 90 * 86400.0
    assert pass_time(1.0) == 1_000_016.0
    wall[0] += 3600.0
    assert clock() == 1_000_016.0
    assert pass_time(ACCEPT + 1.0) == wall[0]
    wall[0] += 5.0  # set by a little: no jump
    assert clock() == wall[0]


async def test_a_jump_of_the_clock_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep while the machine's clock is a year ahead leaves every session alone."""
    import time

    ahead, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    clock = SteadyClock(lambda: time.time())
    store = SQLiteStore(tmp_path / "s.db", clock=clock)
    await store.open()
    await store.create("s", name=None, metadata=b"{}", ttl=86400.0)
    ahead[0] = 366 * 86400.0
    assert await store.sweep(retention=1e9) == 0
    assert await store.session("s") is not None
    await store.close()


async def test_a_reader_that_never_ends_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The write-ahead log cannot be emptied meanwhile: one line says why it grows."""
    monkeypatch.setattr(engine_module, "CHECKPOINT", 50)
    async with Runtime(
        Bot(lambda turn: "ok"), f"sqlite:///{tmp_path / 's.db'}", settings=SETTINGS
    ) as r:
        await r.ask("s", "hi")
        reading = apsw.Connection(str(tmp_path / "s.db"))
        reading.execute("BEGIN; SELECT count(*) FROM header").fetchall()
        for i in range(150):
            await r.ask(f"s{i % 50}", "hi " * 500)
            if "write-ahead log" in caplog.text:
                break
        assert "another program has been reading" in caplog.text
        reading.close()


async def spoiled(store: Store, session: str) -> None:
    """Write something into a session's header that is not one."""
    match store:
        case MemoryStore():
            store._acts.sessions[session].header = b"{bad"
        case SQLiteStore():
            with apsw.Connection(str(store.path)) as db:
                db.execute("UPDATE header SET body = ? WHERE id = ?", (b"{bad", session))
        case RedisStore():
            link, base, id = store.driver.of(session)
            await link.call(("HSET", base + b"h:" + id, "h", "{bad"))
        case PostgresStore():
            schema = store.driver.address.schema
            await store.driver.writer.fetch(
                f"UPDATE {schema}.header SET body = '{{bad' WHERE id = $1", session.encode()
            )


async def test_a_session_that_cannot_be_read_holds_up_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are listed, claimed, trimmed and deleted when they expire; it is said once which is
    left out, and a request for it gets an error."""
    await store.open()
    bad = f"bad {uuid.uuid4()}"
    for name in (bad, "a", "waits"):
        await streamed(store, name, 30)
    await store.create("short", name=None, metadata=b"{}", ttl=0.001)
    await store.submit(Submission("waits", question("hi")))
    await store.submit(Submission(bad, question("hi")))
    await spoiled(store, bad)
    await asyncio.sleep(0.01)
    assert [session.id for session in await store.sessions()] == ["a", "waits"]
    assert [claim.session for claim in await store.claim(desk(), 5)] == ["waits"]
    assert await store.sweep(retention=-1.0) == 1
    log = await store.log("a", 0)
    assert log is not None
    assert log.floor > 0
    with pytest.raises(Damaged):
        await store.session(bad)
    await store.sweep(retention=-1.0)
    assert len([r for r in caplog.records if f"{bad!r} is left out" in r.getMessage()]) == 1
    await store.close()
