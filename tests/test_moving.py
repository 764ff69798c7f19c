"""Sessions move from one store to another, and from Redis as earlier versions kept them.

files/redis1.json.gz was made by such a version: its keys as DUMP gives them, and what it read.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from redis_servers import RedisServer
from test_migration import BEFORE, FILES, reads
from turnwise import Bot, Runtime, Turn
from turnwise.cli import sessions as commands
from turnwise.errors import ConfigurationError, TurnwiseError
from turnwise.settings import Settings
from turnwise.stores.base import Store, Submission
from turnwise.stores.memory import MemoryStore
from turnwise.stores.postgres import PostgresStore
from turnwise.stores.redis import RedisStore
from turnwise.stores.sqlite import SQLiteStore
from turnwise.testing.conformance.acting import answer, delta, desk, question, texts

REDIS: dict[str, Any] = json.loads(gzip.decompress((FILES / "redis1.json.gz").read_bytes()))


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """A store with sessions of all kinds."""
    path = tmp_path / "before.db"
    path.write_bytes(gzip.decompress((FILES / "schema2.db.gz").read_bytes()))
    store = SQLiteStore(path, clock=lambda: BEFORE["now"])
    await store.open()
    yield store
    await store.close()


@pytest.fixture(params=["memory", "sqlite", "redis", "redis-cluster", "postgres"])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A store of each kind, at the same time as the full one."""
    store: Store
    match request.param:
        case "memory":
            store = MemoryStore(clock=lambda: BEFORE["now"])
        case "sqlite":
            store = SQLiteStore(tmp_path / "new.db", clock=lambda: BEFORE["now"])
        case "postgres":
            server = request.getfixturevalue("postgres_server")
            store = PostgresStore(f"{server.url}?schema=t{uuid.uuid4().hex}")
        case kind:
            name = "redis_server" if kind == "redis" else "redis_cluster"
            server = request.getfixturevalue(name)
            store = RedisStore(f"{server.url}?prefix={uuid.uuid4().hex}")
    await store.open()
    if isinstance(store, RedisStore | PostgresStore):
        store.driver.now = lambda: BEFORE["now"]  # type: ignore[method-assign]
    yield store
    await store.close()


async def moved(source: Store, target: Store) -> tuple[int, int]:
    """Export all of one store, and import it into another, as the commands do."""
    file = io.BytesIO()
    ids = [session.id for session in await source.sessions(limit=500)]
    wholes = commands._wholes(source, ids)
    await commands._write_whole(file, None, await source.secret(), wholes)
    file.seek(0)
    return await commands._import(target, file)


async def test_everything_moves(full: SQLiteStore, empty: Store) -> None:
    """Every reading, key and token; what was open is answered, and the numbers go on."""
    count = len(BEFORE["sessions"])
    assert await moved(full, empty) == (count, 0)
    assert (await empty.secret()).hex() == BEFORE["secret"]
    for session, expected in BEFORE["sessions"].items():
        assert await reads(empty, session) == expected, session
    for name, expected in BEFORE["keys"].items():
        session, key = name.rsplit(" ", 1)
        record = await empty.turn_by_key(session, key)
        assert record is not None
        assert record.encode().decode() == expected, name
    assert await moved(full, empty) == (0, count)
    claims = await empty.claim(desk(max_attempts=9), 10)
    assert "one" in texts([claim.message for claim in claims])
    for claim in claims:
        await empty.finish(claim, answer("at last"))
    submitted = await empty.submit(Submission("plain", question("new")))
    assert submitted.turn.n == BEFORE["sessions"]["plain"]["session"]["turns"] + 1


async def test_a_long_session_moves_in_slices(empty: Store) -> None:
    """With more entries than are put at once, some of them without an event."""
    source = MemoryStore(clock=lambda: BEFORE["now"])
    await source.open()
    await source.submit(Submission("s", question("hi"), create=True, ttl=1e6))
    (claim,) = await source.claim(desk(), 1)
    for _ in range(4500):
        await source.append(claim, [delta(1, 1, "x")])
    await source.finish(claim, answer("ok"))
    for i in range(700):
        held = await source.hold("s", "me", 30.0)
        assert held is not None
        await source.save(held, b'{"i":%d}' % i)
    assert await moved(source, empty) == (1, 0)
    assert await reads(empty, "s") == await reads(source, "s")
    assert await empty.state("s") == b'{"i":699}'
    await empty.submit(Submission("s", question("more")))
    assert [claim.turn for claim in await empty.claim(desk(), 5)] == [2]


async def test_a_line_that_is_none(full: SQLiteStore) -> None:
    """What is no export is refused with the line's number, and what came before it stays."""
    target = MemoryStore()
    await target.open()
    whole = await full.whole("plain")
    assert whole is not None
    lines = [json.dumps(whole.as_json()), '{"id": "x", "history": []}']
    with pytest.raises(TurnwiseError, match="Line 2"):
        await commands._import(target, io.BytesIO("\n".join(lines).encode()))
    with pytest.raises(TurnwiseError, match="Line 1"):
        await commands._import(target, io.BytesIO(b"not json"))


# Redis as it was


def restored(server: RedisServer) -> str:
    """Put what an earlier version kept into a Redis."""
    with server.client() as client:
        for key, value in REDIS["keys_dumped"].items():
            client.restore(key.encode("latin-1"), 0, base64.b64decode(value), replace=True)
    return server.url


def turnwise(*arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "turnwise", "sessions", *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, **more)


async def test_an_older_redis_is_refused_with_the_command(own_server: RedisServer) -> None:
    """In one sentence, and nothing in it has changed."""
    url = restored(own_server)
    with own_server.client() as client:
        before = {key: client.dump(key) for key in client.scan_iter()}
        with pytest.raises(ConfigurationError, match="sessions export --all --whole"):
            await RedisStore(url).open()
        assert {key: client.dump(key) for key in client.scan_iter()} == before


async def test_an_older_redis_is_moved_by_the_commands(own_server: RedisServer) -> None:
    """To another prefix: every session reads as before, with its keys and the tokens' secret."""
    url = restored(own_server)
    exported = turnwise("export", "--all", "--whole", "--store", url)
    assert exported.returncode == 0, exported.stderr
    new = f"{url}?prefix=new"
    imported = turnwise("import", "--store", new, input=exported.stdout)
    assert b"Imported" in imported.stdout, imported.stderr
    store = RedisStore(new)
    await store.open()
    store.driver.now = lambda: REDIS["now"]  # type: ignore[method-assign]
    assert (await store.secret()).hex() == REDIS["secret"]
    for session, expected in REDIS["sessions"].items():
        assert await reads(store, session) == expected, session
    for name, expected in REDIS["keys"].items():
        session, key = name.rsplit(" ", 1)
        record = await store.turn_by_key(session, key)
        assert record is not None
        assert record.encode().decode() == expected, name
    store.driver.now = lambda: REDIS["now"] + 60.0  # type: ignore[method-assign]
    waiting = {claim.session for claim in await store.claim(desk(max_attempts=9), 10)}
    assert waiting == {"mixed", "queued only"}
    await store.close()


async def test_a_reply_in_one_piece_is_kept_once(empty: Store) -> None:
    """Its turn is two entries, accepted and ended; the log tells a delta with its text, live
    and read again."""

    async def reply(turn: Turn) -> str:
        return "all of it"

    await empty.close()
    async with Runtime(Bot(reply), empty, settings=Settings(_env_file=None)) as runtime:
        seen = [event async for event in runtime.stream("s", "hi")]
        whole = await empty.whole("s")
        assert whole is not None
        assert [entry.kind for entry in whole.entries] == ["q", "t"]
        log = await empty.log("s", 0)
        assert log is not None
        assert log.events == seen
        assert [event.type for event in seen] == [
            "turn.queued", "turn.started", "delta", "message", "turn.completed",
        ]  # fmt: skip
        assert seen[2].json()["text"] == "all of it"
