"""What a bot says reaches a person's chat once and in order, whoever made it speak."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from conftest import fresh_store, serving
from turnwise import Ask, Bot, Message, Runtime, Turn
from turnwise.conversation import Attachment
from turnwise.conversation.events import (
    delta_draft,
    message_ended_draft,
    message_started_draft,
)
from turnwise.messengers import delivery
from turnwise.messengers.courier import Courier
from turnwise.messengers.platform import Moved, Platform, Refused, Update
from turnwise.settings import Settings
from turnwise.testing.conformance.acting import answer, desk

SETTINGS = Settings(_env_file=None, grace=0.5)


class Pager(Platform):
    """A platform in memory that cuts texts after ten characters, and fails when it is told to."""

    name = "pager"

    def __init__(self, edits: bool = False) -> None:
        self.sent: list[tuple[Any, str]] = []
        self.edited: list[tuple[str, str]] = []
        self.fails: Callable[[str], Exception | None] = lambda text: None
        self.edits = edits
        self.said = asyncio.Event()

    def pieces(self, message: Message) -> list[Message]:
        text = message.text
        found = [Message(text[i : i + 10]) for i in range(0, len(text), 10)]
        return [*found, *(Message(attachments=[one]) for one in message.attachments)]

    async def send(self, update: Update, message: Message) -> str | None:
        text = message.text or message.attachments[0].url
        error = self.fails(text)
        if error is not None:
            raise error
        self.sent.append((update.to, text))
        self.said.set()
        return f"{len(self.sent)}"

    async def edit(self, update: Update, id: str, message: Message) -> bool:
        if self.edits:
            self.edited.append((id, message.text))
        return self.edits

    async def until(self, count: int, seconds: float = 30) -> list[str]:
        """The texts, once so many were sent."""
        async with asyncio.timeout(seconds):
            while len(self.sent) < count:
                self.said.clear()
                await self.said.wait()
        return [text for _, text in self.sent]


def update(id: int, text: str, who: str = "ada") -> Update:
    return Update(str(id), f"pager:{who}", text, {"who": who})


async def echo(turn: Turn) -> str:
    return f"you: {turn.text}"


def passing(*texts: str) -> Callable[[str], Exception | None]:
    """Fails once for each of these texts."""
    left = list(texts)

    def fails(text: str) -> Exception | None:
        if text in left:
            left.remove(text)
            error = ConnectionError("away")
            error.retry_after = 0.01  # type: ignore[attr-defined]
            return error
        return None

    return fails


async def test_a_piece_is_sent_once_whatever_fails_after_it(sqlite_url: str) -> None:
    """Passing errors repeat the piece that failed; a refusal ends that piece alone, a refused file
    is told in words; all of it is seen in the turn, and the callback that hears of it may raise."""

    async def reply(turn: Turn) -> Message:
        return Message("A" * 10 + "B" * 10 + "C", [Attachment("file", "http://x/a", "bill")])

    pager = Pager()
    once = passing("B" * 10)
    pager.fails = lambda text: Refused("never") if text in ("C", "http://x/a") else once(text)
    heard: list[str] = []

    def undelivered(update: Update, message: Message, why: str) -> None:
        heard.append(why)
        raise RuntimeError("a user's own mistake")

    async with (
        Runtime(Bot(reply), sqlite_url, settings=SETTINGS) as runtime,
        Courier(runtime, pager, undelivered=undelivered) as courier,
    ):
        await courier.take(update(1, "go"))
        assert await pager.until(3) == ["A" * 10, "B" * 10, "bill: http://x/a"]
        await courier.take(update(2, "go"))
        await pager.until(6)
        record = await runtime.gateway.turn("pager:ada", 1)
    states = [(one["piece"], one["state"], one["why"]) for one in record.delivery]
    assert states == [(0, "sent", None), (1, "sent", None), (2, "refused", "never"),
                      (3, "sent", None)]  # fmt: skip
    assert heard[:1] == ["never"]


@pytest.mark.parametrize("kind", ["sqlite", "redis", "redis-cluster", "postgres"])
async def test_whoever_makes_the_bot_speak(kind: str, request: pytest.FixtureRequest) -> None:
    """An answer that its process did not send, what a process without messengers says, what the
    bot says by itself, and a reply to another door: another process sends it, once and in order."""
    store = fresh_store(kind, request)
    bot = Bot(echo)

    @bot.wake
    async def woken(turn: Turn) -> str:
        return f"woken: {turn.reason}!"

    first, second = Pager(), Pager()
    first.fails = lambda text: ConnectionError("this process cannot reach it")
    async with (
        Runtime(bot, store, settings=SETTINGS) as one,
        Runtime(bot, store, settings=SETTINGS) as two,
    ):
        courier = Courier(one, first)
        await courier.take(update(1, "hi"))
        await one.ask("pager:ada", "web")
        await courier.close(0.1)
        assert first.sent == []
        async with Courier(two, second):
            assert await second.until(2) == ["you: hi", "you: web"]
            await one.say("pager:ada", "news")
            await one.wake("pager:ada", "tea")
            assert await second.until(5) == ["you: hi", "you: web", "news", "woken: tea", "!"]


async def test_an_attempt_that_is_made_anew(sqlite_url: str) -> None:
    """What was said alike counts as sent; another text is an edit where the platform can, and else
    a new message."""
    for edits in (True, False):
        pager = Pager(edits)
        async with (
            Runtime(None, sqlite_url, worker=False, settings=SETTINGS) as runtime,
            Courier(runtime, pager) as courier,
        ):
            who = f"ada {edits}"
            await courier.take(update(1, "go", who))
            store = runtime.store
            (claim,) = await store.claim(desk("w1"), 1)
            drafts = []
            for place, text in enumerate(("same", "first")):
                drafts += [
                    message_started_draft(1, 0.0, 1, place, Message(id=f"m{place}")),
                    delta_draft(1, 0.0, 1, place, text),
                    message_ended_draft(1, 0.0, 1, place),
                ]
            await store.append(claim, drafts)
            assert await pager.until(2) == ["same", "first"]
            await store.release(claim)
            (claim,) = await store.claim(desk("w2"), 1)
            outcome = answer("same")
            outcome.replies = [Message("same").encode(), Message("second").encode()]
            await store.finish(claim, outcome)
            if edits:
                async with asyncio.timeout(20):
                    while not pager.edited:
                        await asyncio.sleep(0.02)
                assert pager.edited == [("2", "second")]
                assert len(pager.sent) == 2
            else:
                assert await pager.until(3) == ["same", "first", "second"]


async def test_messages_are_sent_when_they_are_said(sqlite_url: str) -> None:
    """The first one does not wait for the last one."""
    gate = asyncio.Event()

    async def slow(turn: Turn) -> AsyncIterator[Message]:
        yield Message("One moment")
        await gate.wait()
        yield Message("Here it is")

    pager = Pager()
    async with (
        Runtime(Bot(slow), sqlite_url, settings=SETTINGS) as runtime,
        Courier(runtime, pager) as courier,
    ):
        await courier.take(update(1, "go"))
        assert await pager.until(1) == ["One moment"]
        gate.set()
        assert await pager.until(2) == ["One moment", "Here it is"]


async def test_a_chat_that_moves(sqlite_url: str) -> None:
    """The reply goes to the new address, and the conversation goes on there."""
    pager = Pager()
    moved = [Moved({"who": "new"}, "pager:new")]
    pager.fails = lambda text: moved.pop() if moved else None

    async def count(turn: Turn) -> str:
        turn.state["n"] = turn.state.get("n", 0) + 1
        return f"{turn.state['n']}"

    async with (
        Runtime(Bot(count), sqlite_url, settings=SETTINGS) as runtime,
        Courier(runtime, pager) as courier,
    ):
        await courier.take(update(1, "hi"))
        await pager.until(1)
        await courier.take(update(2, "still me", "new"))
        await pager.until(2)
        assert pager.sent == [({"who": "new"}, "1"), ({"who": "new"}, "2")]


async def test_a_session_of_an_earlier_version_goes_on(sqlite_url: str) -> None:
    """A chat whose session has its earlier name goes on in it."""
    pager = Pager()
    async with (
        Runtime(Bot(echo), sqlite_url, settings=SETTINGS) as runtime,
        Courier(runtime, pager) as courier,
    ):
        await runtime.ask("pager:7", "long ago")
        for id, chat in ((1, 7), (2, 8)):
            made = Update(
                str(id), f"pager:bot:{chat}", "hi", {"who": chat}, earlier=f"pager:{chat}"
            )
            await courier.take(made)
        await pager.until(2)
        assert len(await runtime.messages("pager:7")) == 4
        assert len(await runtime.messages("pager:bot:8")) == 2


async def test_a_callback_that_raises_loses_nothing(sqlite_url: str) -> None:
    """The message is in the session that the platform has chosen."""

    def choose(update: Update) -> str:
        raise LookupError("a user's own mistake")

    pager = Pager()
    async with (
        Runtime(Bot(echo), sqlite_url, settings=SETTINGS) as runtime,
        Courier(runtime, pager, session=choose) as courier,
    ):
        await courier.take(update(1, "hi"))
        assert await pager.until(1) == ["you: hi"]


async def test_nothing_hangs_and_nobody_is_held_up(sqlite_url: str) -> None:
    """A message that the platform can make nothing of, a chat that moves for ever, a callback that
    hangs, a question whose buttons come at the end: each ends, and the next reply is sent."""

    async def reply(turn: Turn) -> AsyncIterator[Message]:
        if turn.text == "ask":
            yield Message("First")
            yield Ask("Which?", choices=["a", "b"])
        else:
            yield Message(turn.text)

    pager = Pager()
    whole = pager.pieces

    def pieces(message: Message) -> list[Message]:
        if message.text == "odd":
            raise ValueError("what is that?")
        return whole(message)

    pager.pieces = pieces  # type: ignore[method-assign]
    pager.fails = lambda text: Moved({"who": "ada"}, "pager:ada") if text == "moves" else None

    async def undelivered(update: Update, message: Message, why: str) -> None:
        await asyncio.Event().wait()

    async with (
        Runtime(Bot(reply), sqlite_url, settings=SETTINGS) as runtime,
        Courier(runtime, pager, undelivered=undelivered) as courier,
    ):
        for id, text in enumerate(("odd", "moves", "ask", "fine"), 1):
            await courier.take(update(id, text))
        assert await pager.until(3) == ["First", "Which?", "fine"]
        record = await runtime.gateway.turn("pager:ada", 1)
        assert record.delivery[0]["state"] == "refused"


async def test_a_call_that_takes_longer_than_the_lease(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that waits for the platform stays the one that sends."""
    monkeypatch.setattr(delivery, "LEASE", 1.0)
    monkeypatch.setattr(delivery, "BEAT", 0.2)
    slow, other = Pager(), Pager()
    gate = asyncio.Event()
    send = slow.send

    async def waits(update: Update, message: Message) -> str | None:
        await gate.wait()
        return await send(update, message)

    slow.send = waits  # type: ignore[method-assign]
    async with (
        Runtime(Bot(echo), sqlite_url, settings=SETTINGS) as one,
        Runtime(Bot(echo), sqlite_url, settings=SETTINGS) as two,
        Courier(one, slow) as courier,
        Courier(two, other),
    ):
        await courier.take(update(1, "hi"))
        await asyncio.sleep(3.0)  # three leases
        gate.set()
        assert await slow.until(1) == ["you: hi"]
        assert other.sent == []


# Processes that are killed, at a Bot API server that loses, delays and refuses

PROGRAM = """
import asyncio, os, sys
from turnwise import Ask, Bot, Message, Runtime, Turn
from turnwise.messengers.polling import Polling
from turnwise.messengers.telegram import Telegram

async def reply(turn: Turn):
    turn.state["n"] = turn.state.get("n", 0) + 1
    yield Message(f"{turn.state['n']} first {turn.text}")
    await asyncio.sleep(0.05)
    yield Message(f"{turn.state['n']} second {turn.text}")

async def main():
    telegram = Telegram(os.environ["TOKEN"], api=os.environ["API"])
    async with Runtime(Bot(reply), os.environ["STORE"]) as runtime:
        async with Polling(runtime, telegram, first_pause=0.05):
            await asyncio.Event().wait()

asyncio.run(main())
"""


class FaultyAPI:
    """A Bot API server that is not reliable, and keeps what it has acknowledged."""

    token = "123456:" + "A" * 35

    def __init__(self) -> None:
        self.pending: list[dict[str, Any]] = []
        self.acknowledged: list[tuple[int, str]] = []
        self.lost: list[tuple[int, str]] = []
        self.calls = 0
        self.app = FastAPI()
        self.app.add_api_route("/bot{token}/{method}", self.call, methods=["POST"])

    async def call(self, token: str, method: str, request: Request) -> Any:
        form = dict(await request.form())
        if method == "getUpdates":
            offset = int(str(form.get("offset", 0)))
            self.pending = [one for one in self.pending if one["update_id"] >= offset]
            if not self.pending:
                await asyncio.sleep(0.05)
            return {"ok": True, "result": self.pending[:3] + self.pending[:1]}  # one comes twice
        if method != "sendMessage":
            return {"ok": True, "result": True}
        self.calls += 1
        said = int(str(form["chat_id"])), str(form["text"])
        if self.calls % 7 == 3:
            return {"ok": False, "error_code": 502, "description": "Bad Gateway"}
        if self.calls % 11 == 5:
            more = {"retry_after": 1}
            return {"ok": False, "error_code": 429, "description": "slow", "parameters": more}
        if self.calls % 13 == 7:  # it is sent, and nobody is told
            self.lost.append(said)
            return {"ok": False, "error_code": 500, "description": "Internal"}
        self.acknowledged.append(said)
        chat = {"id": said[0], "type": "private"}
        return {"ok": True, "result": {"message_id": self.calls, "date": 1, "chat": chat}}

    def say(self, id: int, chat: int, text: str) -> None:
        who = {"id": chat, "is_bot": False, "first_name": "Ada"}
        chat_of = {"id": chat, "type": "private"}
        message = {"message_id": id, "date": 1, "chat": chat_of, "from": who, "text": text}
        self.pending.append({"update_id": id, "message": message})


@pytest.mark.slow
async def test_a_poller_that_is_killed(sqlite_url: str, tmp_path: Path) -> None:
    """Nothing is lost, each chat's messages come in order, and nothing is sent twice that the
    platform has acknowledged, but for the one call that a kill may have cut off."""
    api, chats, each, kills = FaultyAPI(), 4, 6, 3
    async with serving(api.app) as url:
        environment = {**os.environ, "TOKEN": api.token, "API": url}
        environment["STORE"] = sqlite_url

        def begin() -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, cwd=tmp_path)

        process = begin()
        try:
            for i in range(each):
                for chat in range(1, chats + 1):
                    api.say(100 * i + chat, chat, f"m{i}")
                await asyncio.sleep(0.7)
                if i < kills:
                    process.kill()
                    process.wait()
                    process = begin()
            wanted = {
                chat: [f"{i + 1} {part} m{i}" for i in range(each) for part in ("first", "second")]
                for chat in range(1, chats + 1)
            }

            def seen(chat: int) -> list[str]:
                return [text for c, text in api.acknowledged if c == chat]

            async with asyncio.timeout(150):
                while any(set(wanted[chat]) - set(seen(chat)) for chat in wanted):
                    await asyncio.sleep(0.2)
        finally:
            process.kill()
            process.wait()
    twice = 0
    for chat, texts in wanted.items():
        once = list(dict.fromkeys(seen(chat)))
        assert once == texts, json.dumps([chat, seen(chat)])
        twice += len(seen(chat)) - len(once)
    assert twice <= kills * chats
