"""A file of the version before goes on: its conversations, cursors, tokens and keys.

files/schema2.db.gz was made by that version, and files/schema2.json is what it read from it.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import apsw
import pytest

from turnwise.errors import ConfigurationError, KeyReused
from turnwise.stores.base import Store
from turnwise.stores.records import Submission
from turnwise.stores.sqlite import SQLiteStore, migration
from turnwise.stores.sqlite.locks import LockFile
from turnwise.testing.conformance.acting import answer, desk, question, texts

FILES = Path(__file__).parent / "files"
BEFORE: dict[str, Any] = json.loads((FILES / "schema2.json").read_text())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the file."""
    path = tmp_path / "before.db"
    path.write_bytes(gzip.decompress((FILES / "schema2.db.gz").read_bytes()))
    return path


def opened(path: Path) -> SQLiteStore:
    return SQLiteStore(path, clock=lambda: BEFORE["now"])


ADDED = r',"partial":(true|false),"waiting":\[[^]]*\]'
"""What the end of a turn tells since then."""


async def reads(store: Store, session: str) -> dict[str, Any]:
    """What the file's readings were written from, read again."""
    found = await store.session(session)
    history = await store.history(session, limit=500)
    log = await store.log(session, 0, limit=9999)
    turns, _ = await store.turns(session, status=None, before=None, after=None, limit=500)
    assert found is not None
    assert log is not None
    return {
        "session": found.as_dict(),
        "generation": found.generation,
        "last_event": found.last_event,
        "messages": [message.decode() for message in history.messages_json],
        "open": [turn.encode().decode() for turn in history.open],
        "cursor": history.cursor,
        "state": (await store.state(session)).decode(),
        "turns": [turn.encode().decode() for turn in turns],
        "floor": log.floor,
        "log": [re.sub(ADDED, "", event.encoded.decode()) for event in log.events],
    }


async def test_every_reading_is_as_before(path: Path) -> None:
    """Sessions, histories, turns, logs, states: byte for byte; the secret that signs tokens too."""
    store = opened(path)
    await store.open()
    assert (await store.secret()).hex() == BEFORE["secret"]
    assert [session.id for session in await store.sessions()] == sorted(BEFORE["sessions"])
    for session, expected in BEFORE["sessions"].items():
        assert await reads(store, session) == expected, session
    await store.close()


async def test_keys_stand_for_the_same_turns(path: Path) -> None:
    """Also for turns that a reset has emptied; another body is refused."""
    store = opened(path)
    await store.open()
    for name, expected in BEFORE["keys"].items():
        session, key = name.rsplit(" ", 1)
        record = await store.turn_by_key(session, key)
        assert record is not None
        assert record.encode().decode() == expected, name
    wish = Submission("plain", question("anything"), key="k0", fingerprint="f0")
    assert not (await store.submit(wish)).created
    with pytest.raises(KeyReused):
        await store.submit(Submission("plain", question("x"), key="k0", fingerprint="other"))
    await store.close()


async def test_what_was_open_is_answered(path: Path) -> None:
    """Turns that ran or waited are claimed in their order; the numbers go on."""
    store = SQLiteStore(path, clock=lambda: BEFORE["now"] + 60.0)  # the leases have run out
    await store.open()
    answered: dict[str, list[str]] = {}
    for _ in range(20):
        for claim in await store.claim(desk(max_attempts=9), 10):
            answered.setdefault(claim.session, []).extend(texts([claim.message]))
            await store.finish(claim, answer("at last"))
    assert answered == {"mixed": ["runs", "waits", "waits too"], "queued only": ["one"]}
    submitted = await store.submit(Submission("mixed", question("new")))
    assert submitted.turn.n == BEFORE["sessions"]["mixed"]["session"]["turns"] + 1
    log = await store.log("mixed", BEFORE["sessions"]["mixed"]["last_event"], limit=100)
    assert log is not None
    assert log.events[0].id == BEFORE["sessions"]["mixed"]["last_event"] + 1
    await store.close()


async def test_a_large_file(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of many sessions is moved in one step, and says how far it is."""
    copies = 600
    monkeypatch.setattr(migration, "PROGRESS", 2000)
    tables = {"session": "id", "state": "session", "turn": "session", "message": "session"}
    with apsw.Connection(str(path)) as db:
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < {copies})"
        db.execute(f"CREATE TEMP TABLE n AS {numbers} SELECT i FROM n")
        for table, id in {**tables, "entry": "session"}.items():
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
            rest = [c for c in columns if c not in (id, "pos")]
            db.execute(
                f"INSERT INTO {table} ({id}, {', '.join(rest)})"
                f" SELECT {id} || ' ' || i, {', '.join(rest)} FROM {table}, n"
            )
    store = opened(path)
    await store.open()
    assert "sessions are upgraded" in caplog.text
    for copy in (1, copies // 2, copies):
        for session, expected in BEFORE["sessions"].items():
            found = await reads(store, f"{session} {copy}")
            found["session"]["id"] = session
            assert found["messages"] == expected["messages"]
            assert found["log"] == expected["log"]
            assert found["session"] == expected["session"]
    assert (await store.facts())["integrity"] == "ok"
    await store.close()


async def test_a_file_of_the_first_version(tmp_path: Path) -> None:
    """Its log, a row for each event then, is read as it was."""
    from importlib import resources

    path = tmp_path / "first.db"
    sql = resources.files("turnwise.stores.sqlite").joinpath("schema2.sql").read_text()
    told = BEFORE["sessions"]["plain"]["log"]
    with apsw.Connection(str(path)) as db:
        db.execute(sql.split("-- migration: 2")[0])
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO session (id, metadata, created_at, ttl, expires_at, generation,"
            " last_event) VALUES ('s', '{}', 1, 9e9, 9e9, 1, ?)",
            (len(told),),
        )
        for encoded in told:
            event = json.loads(encoded)
            if event["type"] in ("delta", "custom"):
                tail = encoded.partition(f'"type":"{event["type"]}",')[2].encode()
                row = ("s", event["id"], event["turn"], event["type"], tail, 1.0, 7)
                db.execute("INSERT INTO event VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", row)
    store = SQLiteStore(path)
    await store.open()
    log = await store.log("s", 0)
    assert log is not None
    assert [event.encoded.decode() for event in log.events] == [
        encoded for encoded in told if json.loads(encoded)["type"] in ("delta", "custom")
    ]
    await store.close()


async def test_an_upgrade_waits_for_no_process(path: Path) -> None:
    """While a process of the version before has the file open, it is left as it is, in words."""
    locks = LockFile(path.with_name(f"{path.name}-pulse"), beside=path)
    locks.open()
    assert locks.take(42)
    store = opened(path)
    with pytest.raises(ConfigurationError, match=r"Stop .* first"):
        await store.open()
    with apsw.Connection(str(path)) as db:
        assert db.pragma("user_version") == 2
    locks.close()
    await store.open()
    await store.close()
