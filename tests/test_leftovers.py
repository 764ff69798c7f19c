"""What must be found nowhere: words of a session that was deleted or reset, words in a log."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from conftest import fresh_store
from postgres_servers import PostgresServer
from redis_servers import RedisCluster, RedisServer
from test_messenger_outbox import Pager
from turnwise import Ask, Bot, Message, Runtime, Settings, Turn
from turnwise.conversation import Attachment
from turnwise.errors import TurnError
from turnwise.messengers.courier import Courier
from turnwise.messengers.platform import Moved, Update

CANARY = "kanarienvogel-7f3a"
bot = Bot()


@bot.reply
async def _everywhere(turn: Turn) -> AsyncIterator[str | Message]:
    """Puts the word wherever a handler can put one, except for one person."""
    if turn.session.id == "other":
        yield "plain"
        return
    turn.state["last"] = turn.text
    turn.usage = {"note": CANARY}
    turn.session.name = CANARY
    await turn.memory.add({"tool": CANARY})
    await turn.emit(CANARY, {"x": CANARY}, keep=True)
    async with turn.step(CANARY, {"in": CANARY}) as step:
        await step.say(CANARY)
        step.output = CANARY
    if turn.text.endswith("fails"):
        raise RuntimeError(CANARY)
    yield Message(f"said {CANARY}", [Attachment("image", f"https://x.org/{CANARY}")])
    yield Ask(f"Sure, {CANARY}?", choices=[CANARY, "no"])


async def live(runtime: Runtime, courier: Courier, pager: Pager, session: str, key: str) -> None:
    """A conversation with the word in each of its parts, on a messenger and on other doors."""
    file = await runtime.upload(session, f"{CANARY}.txt", CANARY.encode())
    await courier.take(
        Update(key, session, CANARY, {"who": CANARY}, metadata={"x": CANARY}, attachments=[file])
    )
    await pager.until(3)
    reply = await runtime.ask(session, f"{CANARY} again", key=key, note={"n": CANARY})
    await runtime.ask(session, "", answers={reply.asks[0].id: CANARY})
    await runtime.ask(session, f"{CANARY} edited", replaces=2)
    message = (await runtime.messages(session))[1]
    await runtime.gateway.judge(session, message.id, "down", CANARY)
    await runtime.wake(session, CANARY, key=f"{key} tea", at=time.time() + 3600)
    with pytest.raises(TurnError):
        await runtime.ask(session, f"{CANARY} fails")
    await runtime.gateway.update(session, {"metadata": {"m": CANARY}, "private": {"p": CANARY}})


class Everything:
    """All bytes that a store keeps."""

    def __init__(self, kind: str, url: str, request: pytest.FixtureRequest) -> None:
        self._kind = kind
        self._url = url
        self._request = request

    async def holding(self, word: str) -> list[str]:
        """Where a word is found."""
        if self._kind == "sqlite":
            folder = Path(self._url.removeprefix("sqlite:///")).parent
            return [p.name for p in folder.rglob("*") if p.is_file() and _has(p.read_bytes(), word)]
        if self._kind == "postgres":
            return await self._in_postgres(word)
        servers: list[RedisServer] = []
        if self._kind == "redis":
            servers = [self._request.getfixturevalue("redis_server")]
        else:
            cluster: RedisCluster = self._request.getfixturevalue("redis_cluster")
            servers = cluster.nodes
        prefix, found = self._url.rpartition("prefix=")[2], []
        for server in servers:
            with server.client() as client:
                client.config_set("rdbcompression", "no")  # a dump is compressed otherwise
                for key in client.keys(f"{prefix}*"):
                    value = client.dump(key) or b""
                    found += [str(key)] if _has(key, word) or _has(value, word) else []
        return found

    async def _in_postgres(self, word: str) -> list[str]:
        server: PostgresServer = self._request.getfixturevalue("postgres_server")
        schema, found = self._url.rpartition("schema=")[2], []
        connection = await asyncpg.connect(server.url)
        names = "SELECT tablename FROM pg_tables WHERE schemaname = $1"
        for (table,) in await connection.fetch(names, schema):
            for (row,) in await connection.fetch(f'SELECT t::text FROM {schema}."{table}" t'):
                found += [table] if _has(row.encode(), word) else []
        await connection.close()
        return found


def _has(value: bytes, word: str) -> bool:
    return word.encode() in value or word.encode().hex().encode() in value


@pytest.mark.parametrize("way", ["delete", "reset"])
@pytest.mark.parametrize("kind", ["sqlite", "redis", "redis-cluster", "postgres"])
async def test_nothing_is_left(
    kind: str, way: str, request: pytest.FixtureRequest, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A deleted session's words, and its id, are in no row, key, file or outbox, a moment later; of
    one that was reset only its own data stays: its name and metadata, and the chat it belongs to.
    The log has never held one."""
    caplog.set_level("DEBUG", logger="turnwise")
    store, session = fresh_store(kind, request), "session-4d2e"
    files = tmp_path / "files"
    settings = Settings(_env_file=None, grace=0.5, files=str(files))
    pager = Pager()
    moved = [Moved({"who": CANARY}, "pager:moved")]
    pager.fails = lambda text: moved.pop() if moved else None
    async with (
        Runtime(bot, store, settings=settings) as runtime,
        Courier(runtime, pager) as courier,
    ):
        await runtime.ask("other", "I stay")
        await runtime.create(session)
        # A reset keeps the keys, so that a request that is repeated is not done again.
        key = CANARY if way == "delete" else "a key"
        await live(runtime, courier, pager, session, key)
        everything = Everything(kind, store, request)
        assert await everything.holding(CANARY)
        if way == "reset":
            await runtime.gateway.update(session, {"name": "plain", "metadata": {}, "private": {}})
            await runtime.gateway.reset(session)
            await runtime.gateway.deliveries.move(session, "pager", {"who": "ada"}, "pager:moved")
        else:
            await runtime.gateway.delete(session)
        await runtime.gateway.deliveries.sweep()
        # In SQLite other processes are told of the session's end by its id, for a minute.
        words = [CANARY] if way == "reset" or kind == "sqlite" else [CANARY, session]
        async with asyncio.timeout(15):
            while [place for word in words for place in await everything.holding(word)]:
                await runtime.ask("other", "again")
                await asyncio.sleep(0.2)
        assert not any(CANARY in path.name for path in files.rglob("*"))
        assert len(await runtime.messages("other")) >= 2
    for record in caplog.records:
        if record.name.startswith("turnwise"):
            assert CANARY not in caplog.handler.format(record)
    shutil.rmtree(files, ignore_errors=True)
