"""A cursor names the event that was read: a store that came back with another past gives a gap."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from postgres_servers import PostgresServer
from redis_servers import RedisServer
from turnwise import Bot, Runtime, Turn
from turnwise.conversation import Cursor
from turnwise.errors import Invalid
from turnwise.server.app import create_app
from turnwise.settings import Settings

SETTINGS = Settings(_env_file=None)


async def said(runtime: Runtime, *texts: str) -> None:
    for text in texts:
        assert (await runtime.ask("s", text)).text == f"re {text}"


def bot() -> Bot:
    async def reply(turn: Turn) -> str:
        return f"re {turn.text}"

    return Bot(reply)


async def events(runtime: Runtime, after: str, headers: dict[str, str] | None = None) -> Any:
    """A page of the session's events, over HTTP."""
    app = create_app(runtime)
    session = await runtime.gateway.session("s")
    given = {"authorization": f"Bearer {runtime.gateway.token(session)}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t", headers=given) as client:
        more = {"accept": "application/json", **(headers or {})}
        params = {} if headers else {"after": after}
        return (await client.get("/sessions/s/events", params=params, headers=more)).json()


def restore(backup: Path, path: Path) -> None:
    """Put a backup in a file's place, without what was beside the file."""
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, path)


async def another_past(runtime: Runtime, cursor: str) -> None:
    """The session has another past than the one in which `cursor` was read."""
    number = int(cursor.partition("-")[0])
    for header in (None, {"last-event-id": cursor}):
        page = await events(runtime, cursor, header)
        gap, *more = page["events"]
        assert (gap["type"], gap["after"]) == ("gap", number)
        assert more == []
        following = await events(runtime, page["next"])
        assert following["events"] == []
    plain = await events(runtime, str(number))
    assert [event["type"] for event in plain["events"]][:1] != ["gap"], "numbers go on unprotected"


async def test_a_file_restored_from_a_backup(tmp_path: Path) -> None:
    """What was read after the backup was made is another past's, though its numbers are there."""
    path, backup = tmp_path / "s.db", tmp_path / "backup.db"
    async with Runtime(bot(), f"sqlite:///{path}", settings=SETTINGS) as runtime:
        await said(runtime, "one")
    shutil.copy(path, backup)
    async with Runtime(bot(), f"sqlite:///{path}", settings=SETTINGS) as runtime:
        await said(runtime, "two", "three")
        cursor = (await events(runtime, "0"))["next"]
        assert (await events(runtime, cursor))["events"] == []
        early = (await events(runtime, "0"))["events"][3]["id"]
    restore(backup, path)
    async with Runtime(bot(), f"sqlite:///{path}", settings=SETTINGS) as runtime:
        await said(runtime, "other two", "other three", "other four")
        await another_past(runtime, cursor)
        whole = await events(runtime, str(early))
        assert [event["id"] for event in whole["events"]][:1] == [early + 1]


async def test_a_postgresql_that_lost_its_last_turns(postgres_server: PostgresServer) -> None:
    """As after a promotion: rows are back where they were, and others follow."""
    url = f"{postgres_server.url}?schema=promoted"
    tables = ("header", "look", "entry", "key", "state", "part")
    async with Runtime(bot(), url, settings=SETTINGS) as runtime:
        await said(runtime, "one")
        for table in tables:
            await postgres_server.execute(
                f"CREATE TABLE promoted.{table}_then AS SELECT * FROM promoted.{table}"
            )
        await said(runtime, "two", "three")
        cursor = (await events(runtime, "0"))["next"]
    for table in tables:
        await postgres_server.execute(
            f"DELETE FROM promoted.{table}; INSERT INTO promoted.{table}"
            f" OVERRIDING SYSTEM VALUE SELECT * FROM promoted.{table}_then"
        )
    async with Runtime(bot(), url, settings=SETTINGS) as runtime:
        await said(runtime, "other two", "other three", "other four")
        await another_past(runtime, cursor)


async def test_a_redis_that_came_back_with_less(own_server: RedisServer) -> None:
    """As after a failover to a replica that lacked the latest turns: others follow."""
    url, copy = own_server.url, own_server.folder.with_name("copy")
    async with Runtime(bot(), url, settings=SETTINGS) as runtime:
        await said(runtime, "one")
    shutil.copytree(own_server.folder, copy)
    async with Runtime(bot(), url, settings=SETTINGS) as runtime:
        await said(runtime, "two", "three")
        cursor = (await events(runtime, "0"))["next"]
        assert (await events(runtime, cursor))["events"] == []
    own_server.kill()
    shutil.rmtree(own_server.folder)
    shutil.copytree(copy, own_server.folder)
    own_server.start()
    async with Runtime(bot(), url, settings=SETTINGS) as runtime:
        await said(runtime, "other two", "other three", "other four")
        await another_past(runtime, cursor)


async def test_every_cursor_continues_exactly(tmp_path: Path) -> None:
    """The id of each server-sent event, `cursor` and `next` resume behind their event."""
    async with Runtime(bot(), f"sqlite:///{tmp_path / 's.db'}", settings=SETTINGS) as runtime:
        await said(runtime, "one", "two")
        with runtime.gateway.follow("s", 0) as reader:
            found = await reader.read(5.0)
        assert [event.id for event in found] == list(range(1, len(found) + 1))
        for event in found:
            cursor = str(event.cursor)
            assert f"id: {cursor}\n".encode() in event.sse
            assert json.loads(event.encoded)["id"] == event.id
            page = await events(runtime, cursor)
            assert [one["id"] for one in page["events"]] == list(
                range(event.id + 1, len(found) + 1)
            )


@pytest.mark.parametrize(
    "text", ["", "-", "-1", "1-", "1-a-b", "a", "1.5", "1 ", "\u00b2", "9" * 17]
)
def test_what_is_no_cursor(text: str) -> None:
    """It is refused in words."""
    with pytest.raises(Invalid):
        Cursor.parse(text)


@pytest.mark.parametrize("text", ["0", "15", "15-k3f9a1c2", "9007199254740992"])
def test_cursors_and_their_texts(text: str) -> None:
    """Both ways."""
    assert str(Cursor.parse(text)) == text
