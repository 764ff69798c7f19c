"""Sessions move from one store to another, and from Redis as earlier versions kept them.

files/redis1.json.gz was made by such a version: its keys as DUMP gives them, and what it read.
"""

from __future__ import annotations

import asyncio
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

import apsw
import pytest

from redis_servers import RedisServer
from test_migration import BEFORE, FILES, reads
from turnwise import Bot, Runtime, Turn
from turnwise.cli import moving
from turnwise.conversation import Message
from turnwise.errors import ConfigurationError, TurnwiseError
from turnwise.settings import Settings
from turnwise.stores.base import Store
from turnwise.stores.claim import WHOLE, Claim
from turnwise.stores.header import Header
from turnwise.stores.memory import MemoryStore
from turnwise.stores.postgres import PostgresStore
from turnwise.stores.records import Submission
from turnwise.stores.redis import RedisStore
from turnwise.stores.sqlite import SQLiteStore
from turnwise.testing.conformance.acting import answer, delta, desk, question, texts
from turnwise.tokens import SIGNING, active

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
    wholes = moving.wholes(source, ids)
    await moving.write_whole(file, None, [await source.secret()], wholes)
    file.seek(0)
    return await moving.import_lines(target, file)


async def same_keys(store: Store, keys: dict[str, str]) -> None:
    """Each key stands for the turn that it stood for."""
    for name, expected in keys.items():
        session, key = name.rsplit(" ", 1)
        record = await store.turn_by_key(session, key)
        assert record is not None
        assert record.encode().decode() == expected, name


async def test_everything_moves(
    full: SQLiteStore, empty: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every reading, key and token; what was open is answered, and the numbers go on."""
    count = len(BEFORE["sessions"])
    assert await moved(full, empty) == (count, 0)
    assert (await empty.secret()).hex() == BEFORE["secret"]
    for session, expected in BEFORE["sessions"].items():
        assert await reads(empty, session) == expected, session
    await same_keys(empty, BEFORE["keys"])
    assert await moved(full, empty) == (0, count)
    assert "not valid" not in capfd.readouterr().err, "it is the same secret"
    claims = await empty.claim(desk(max_attempts=9), 10)
    assert "one" in texts([claim.message for claim in claims])
    for claim in claims:
        await empty.finish(claim, answer("at last"))
        said = (await empty.history(claim.session)).messages[-2]
        assert (said.status, said.turn, said.id) == (
            "completed", claim.turn, Message.decode(claim.message).id,
        )  # fmt: skip
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


async def test_a_part_of_a_session_is_never_seen(empty: Store) -> None:
    """While a long one is put into the store, and a sweep goes on beside; a session that is
    made with its id meanwhile is kept."""
    source = MemoryStore(clock=lambda: BEFORE["now"])
    await source.open()
    for name in ("s", "taken"):
        await source.submit(Submission(name, question("hi"), create=True, ttl=1e6))
        (claim,) = await source.claim(desk(), 1)
        for _ in range(8100):
            await source.append(claim, [delta(1, 1, "x")])
        await source.finish(claim, answer("ok"))
    wholes = [await source.whole(name) for name in ("s", "taken")]
    assert wholes[0] is not None
    assert wholes[1] is not None
    putting = asyncio.create_task(empty.put(wholes[0]))
    while not putting.done():
        if await empty.session("s") is not None:
            assert len((await empty.history("s")).messages_json) == 2
        await asyncio.sleep(0)
    assert await putting
    second = asyncio.create_task(empty.put(wholes[1]))
    await asyncio.sleep(0.002)
    await empty.submit(Submission("taken", question("mine"), create=True, ttl=1e6))
    done = await second
    texts_seen = [turn.message.text for turn in (await empty.history("taken")).open if turn.message]
    assert texts_seen == ["mine"], "an acknowledged message was lost"
    assert done is ((await empty.history("taken")).messages != [])


async def test_a_line_that_is_none(full: SQLiteStore) -> None:
    """A line that is not of an export is refused with its number; what came before it stays."""
    target = MemoryStore()
    await target.open()
    whole = await full.whole("plain")
    assert whole is not None
    lines = [json.dumps(whole.as_json()), '{"id": "x", "history": []}']
    with pytest.raises(TurnwiseError, match="Line 2"):
        await moving.import_lines(target, io.BytesIO("\n".join(lines).encode()))
    with pytest.raises(TurnwiseError, match="Line 1"):
        await moving.import_lines(target, io.BytesIO(b"not json"))


async def test_a_damaged_session_is_left_out_of_an_export(
    full: SQLiteStore, capfd: pytest.CaptureFixture[str]
) -> None:
    """The others are exported, and the command says which is not."""
    with apsw.Connection(str(full.path)) as db:
        with_start = "SELECT num, id FROM entry JOIN header USING (num) WHERE kind = 's'"
        num, name = db.execute(with_start).fetchall()[0]
        db.execute("UPDATE entry SET body = ? WHERE num = ? AND kind = 's'", (b"{bad", num))
    file, ids = io.BytesIO(), [session.id for session in await full.sessions()]
    with pytest.raises(TurnwiseError, match="1 damaged"):
        await moving.write_whole(file, None, [b"x"], moving.wholes(full, ids))
    assert len(file.getvalue().splitlines()) == len(ids)  # the secret, and all but one
    assert f"{name!r} is damaged" in capfd.readouterr().err


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
    await same_keys(store, REDIS["keys"])
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
            "turn.queued", "turn.started", "message.started", "delta", "message.ended", "message",
            "turn.completed",
        ]  # fmt: skip
        assert seen[3].json()["text"] == "all of it"
        ids = {event.json()["message"]["id"] for event in seen[2::3] if event.type != "delta"}
        assert len(ids) == 1, "the id is final"


async def test_a_reply_in_one_piece_of_an_earlier_version(empty: Store) -> None:
    """Its end was stored with one derived event, the delta: the numbers are still those."""
    taken: list[Claim | None] = []
    wish = Submission("s", question("hi"), create=True, ttl=1e6)
    await empty.submit(wish, desk(), taken.append)
    assert taken[0] is not None
    outcome = answer("all of it")
    outcome.told = WHOLE
    await empty.finish(taken[0], outcome)
    made = await empty.whole("s")
    assert made is not None
    q, t = made.entries
    head = json.loads(t.parts()[0])
    head[9] = 1  # as it was
    was = t._replace(last=5, body=b"\n".join((json.dumps(head).encode(), *t.parts()[1:])))
    header = Header.decode(made.header)
    header.events = 5
    await empty.delete("s")
    assert await empty.put(made._replace(header=header.encode(), entries=[q, was]))
    log = await empty.log("s", 0)
    assert log is not None
    assert [(event.id, event.type) for event in log.events] == [
        (1, "turn.queued"), (2, "turn.started"), (3, "delta"), (4, "message"),
        (5, "turn.completed"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "/no/such.jsonl"), "does not exist"),
        (("import", "/"), "is a directory"),
        (("export", "--all", "-o", "/no/such/folder/x"), "Cannot write"),
    ],
)
def test_files_that_cannot_be_opened(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """They are named in a sentence, without a traceback."""
    done = turnwise(*arguments, "--store", f"sqlite:///{tmp_path}/s.db")
    assert done.returncode != 0
    said = " ".join(done.stderr.decode().replace("│", " ").split())
    assert words in said
    assert "Traceback" not in said


async def test_rotated_secrets_move_too(full: Store, tmp_path: Path) -> None:
    """Tokens that the new and the old secret have signed are valid in the store they move to."""
    root, fresh = await full.secret(), b"n" * 32
    file = io.BytesIO()
    ids = [session.id for session in await full.sessions()]
    await moving.write_whole(file, None, [fresh, root], moving.wholes(full, ids))
    store = SQLiteStore(tmp_path / "moved.db")
    await store.open()
    await moving.import_lines(store, io.BytesIO(file.getvalue()))
    assert active(await store.secret(), await store.published(SIGNING)) == [fresh, root]
    await store.close()
