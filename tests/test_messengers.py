"""Messengers: people on other platforms, in order, once, whatever fails on the way."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from conftest import Opener, serving
from test_examples import EXAMPLES
from turnwise import Bot, Message, Runtime, Turn
from turnwise.errors import ConfigurationError
from turnwise.messengers.courier import Courier, Update
from turnwise.messengers.polling import PolledPlatform, Polling
from turnwise.messengers.rasa import rest_webhook
from turnwise.messengers.slack import Slack, slack_webhook
from turnwise.messengers.telegram import Telegram, telegram_webhook
from turnwise.settings import Settings


async def _echo(turn: Turn) -> str:
    turn.state["n"] = turn.state.get("n", 0) + 1
    if turn.text == "fail":
        raise RuntimeError("no")
    return f"{turn.state['n']}: {turn.text}"


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Runtime]:
    settings = Settings(_env_file=None, grace=1.0)
    async with Runtime(Bot(_echo), f"sqlite:///{folder / 'm.db'}", settings=settings) as runtime:
        yield runtime


class Fake(PolledPlatform):
    """A platform in memory that fails when told to."""

    name = "fake"

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[list[Update] | Exception] = asyncio.Queue()
        self.outbox: asyncio.Queue[tuple[Any, str]] = asyncio.Queue()
        self.send_fails = 0

    async def updates(self) -> Sequence[Update]:
        found = await self.inbox.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def send(self, update: Update, message: Message) -> None:
        if self.send_fails:
            self.send_fails -= 1
            error = ConnectionError("away")
            error.retry_after = 0.01  # type: ignore[attr-defined]
            raise error
        await self.outbox.put((update.to, message.text))

    async def sent(self, count: int) -> list[tuple[Any, str]]:
        async with asyncio.timeout(10):
            return [await self.outbox.get() for _ in range(count)]


def update(id: int, text: str, who: str = "ada") -> Update:
    return Update(str(id), f"fake:{who}", text, who)


async def test_people_are_answered_in_order(tmp_path: Path) -> None:
    """Each person's replies in order; people side by side."""
    fake = Fake()
    async with running(tmp_path) as runtime, Polling(runtime, fake):
        fake.inbox.put_nowait(
            [update(10 * i + j, f"m{i}", f"p{j}") for i in range(5) for j in range(4)]
        )
        sent = await fake.sent(20)
    for j in range(4):
        said = [text for to, text in sent if to == f"p{j}"]
        assert said == [f"{i + 1}: m{i}" for i in range(5)]


async def test_an_update_that_comes_twice_is_one_turn(tmp_path: Path) -> None:
    """In one process and after a restart; another one with the same text is another turn."""
    fake = Fake()
    async with running(tmp_path) as runtime, Polling(runtime, fake):
        fake.inbox.put_nowait([update(1, "hi"), update(1, "hi")])
        fake.inbox.put_nowait([update(1, "hi"), update(2, "hi")])
        assert await fake.sent(2) == [("ada", "1: hi"), ("ada", "2: hi")]
        assert fake.outbox.empty()
    async with running(tmp_path) as runtime:
        courier = Courier(runtime, fake)
        await courier.take(update(2, "hi"))
        await courier.take(update(3, "more"))
        assert await fake.sent(1) == [("ada", "3: more")]  # what was sent is not sent again
        assert len(await runtime.messages("fake:ada")) == 6
        await courier.close()


async def test_polling_never_stops(tmp_path: Path) -> None:
    """Neither at errors of the platform nor at updates that cannot be taken."""
    fake = Fake()
    async with running(tmp_path) as runtime, Polling(runtime, fake, first_pause=0.01):
        fake.inbox.put_nowait(ConnectionError("away"))
        fake.inbox.put_nowait(ValueError("nonsense"))
        odd: Any = None
        broken, empty = update(1, odd), update(2, "")
        fake.inbox.put_nowait([broken, empty, update(3, "hi"), update(4, "fail")])
        sent = await fake.sent(4)
    texts = [text for _, text in sent]
    assert texts[2] == "1: hi"
    assert "needs a text" in texts[1]
    assert "error" in texts[3]


async def test_what_cannot_be_sent_is_tried_again(tmp_path: Path) -> None:
    """And keeps its place before the next reply."""
    fake = Fake()
    fake.send_fails = 3
    async with running(tmp_path) as runtime, Polling(runtime, fake):
        fake.inbox.put_nowait([update(1, "a"), update(2, "b")])
        assert await fake.sent(2) == [("ada", "1: a"), ("ada", "2: b")]


# Telegram, at a Bot API server of our own


class BotAPI:
    """A Bot API server: gives updates until they are confirmed, takes messages."""

    token = "123456:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

    def __init__(self) -> None:
        self.pending: list[dict[str, Any]] = []
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.arrived = asyncio.Event()
        self.failures = 0
        self.refused: dict[str, tuple[int, str, dict[str, Any]]] = {}
        """What it answers to calls of a method: a status, words, and parameters."""
        self.calls: list[str] = []
        self.app = FastAPI()
        self.app.add_api_route("/bot{token}/{method}", self.call, methods=["POST"])

    async def call(self, token: str, method: str, request: Request) -> Any:
        assert token == self.token
        async with request.form() as given:
            form = {name: str(value) for name, value in given.items()}
        if self.failures:
            self.failures -= 1
            return {"ok": False, "error_code": 500, "description": "Internal"}
        self.calls.append(method)
        if method in self.refused:
            code, words, more = self.refused[method]
            told = {"ok": False, "error_code": code, "description": words, "parameters": more}
            return JSONResponse(told, code)
        if method == "getMe":
            me = {"id": 123456, "is_bot": True, "first_name": "Ours", "username": "ours_bot"}
            return {"ok": True, "result": me}
        if method == "getUpdates":
            return {"ok": True, "result": await self.updates(int(str(form.get("offset", 0))))}
        await self.sent.put({"method": method, **form})
        if method in ("answerCallbackQuery", "sendChatAction"):
            return {"ok": True, "result": True}
        message = {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}}
        return {"ok": True, "result": message}

    async def updates(self, offset: int) -> list[dict[str, Any]]:
        self.pending = [one for one in self.pending if one["update_id"] >= offset]
        if not self.pending:
            self.arrived.clear()
            try:
                async with asyncio.timeout(1):
                    await self.arrived.wait()
            except TimeoutError:
                return []
        return self.pending

    def say(self, id: int, text: str, chat: int = 7) -> dict[str, Any]:
        message = {
            "message_id": id,
            "date": 1,
            "chat": {"id": chat, "type": "private"},
            "from": {"id": chat, "is_bot": False, "first_name": "Ada"},
            "text": text,
        }
        made = {"update_id": id, "message": message}
        self.pending.append(made)
        self.arrived.set()
        return made

    async def texts(self, count: int) -> list[str]:
        async with asyncio.timeout(60):
            return [str((await self.sent.get())["text"]) for _ in range(count)]


@asynccontextmanager
async def bot_api() -> AsyncIterator[tuple[BotAPI, Telegram]]:
    api = BotAPI()
    async with serving(api.app) as url:
        yield api, Telegram(api.token, api=url)


async def test_telegram_by_polling(tmp_path: Path) -> None:
    """Real client, real server: replies in order, errors survived, long texts in pieces."""
    async with bot_api() as (api, telegram), running(tmp_path) as runtime:
        api.failures = 1
        async with Polling(runtime, telegram, first_pause=0.05):
            api.say(1, "a")
            api.say(2, "b")
            assert await api.texts(2) == ["1: a", "2: b"]
            api.say(3, "x" * 4100)
            pieces = await api.texts(2)
            assert "".join(pieces) == "3: " + "x" * 4100
        messages = await runtime.messages("telegram:123456:7")
        assert messages[0].metadata["from"] == "Ada"


async def test_telegram_by_webhook(open_sqlite_door: Opener, tmp_path: Path) -> None:
    """Acknowledged when it is kept, refused without the secret, once although it comes twice."""
    async with bot_api() as (api, telegram):

        def app(runtime: Runtime) -> FastAPI:
            made = FastAPI(lifespan=runtime.lifespan)
            made.include_router(telegram_webhook(runtime, telegram, "s3cret"))
            return made

        async with open_sqlite_door(Bot(_echo), app=app) as door:
            headers = {"X-Telegram-Bot-Api-Secret-Token": "s3cret"}
            for body in (api.say(1, "a"), api.say(1, "a"), api.say(2, "b")):
                response = await door.client.post("/webhooks/telegram", json=body, headers=headers)
                assert response.status_code == 200
            assert await api.texts(2) == ["1: a", "2: b"]
            for secret in ({}, {"X-Telegram-Bot-Api-Secret-Token": "wrong"}):
                refused = await door.client.post("/webhooks/telegram", json={}, headers=secret)
                assert refused.status_code == 401
            bad = await door.client.post("/webhooks/telegram", content=b"{", headers=headers)
            assert bad.status_code == 422
            odd = {"update_id": 9, "message": {"message_id": "nine"}}
            passed_over = await door.client.post("/webhooks/telegram", json=odd, headers=headers)
            assert passed_over.status_code == 200, "or Telegram sends it again for ever"
            assert api.sent.empty()


async def test_the_telegram_example(tmp_path: Path) -> None:
    """A program of its own, killed in between: what people told it is kept and not told twice."""
    api = BotAPI()
    async with serving(api.app) as url:
        environment = {**os.environ, "TELEGRAM_TOKEN": api.token, "TELEGRAM_API": url}

        def start() -> subprocess.Popen[bytes]:
            command = [sys.executable, str(EXAMPLES / "telegram_bot.py")]
            return subprocess.Popen(command, cwd=tmp_path, env=environment)

        first = start()
        try:
            api.say(1, "Milk")
            api.say(2, "Bread")
            assert await api.texts(2) == ["milk: noted, 1 to buy.", "bread: noted, 2 to buy."]
        finally:
            first.kill()
            first.wait()
        second = start()
        try:
            api.say(3, "list")
            texts = await api.texts(1)
            while texts[-1] != "- milk\n- bread":  # the last may not have been confirmed
                texts += await api.texts(1)
            assert texts[:-1] in ([], ["bread: noted, 2 to buy."])
        finally:
            second.terminate()
            second.wait()


def test_a_telegram_token_that_is_none() -> None:
    """Told in words."""
    with pytest.raises(ConfigurationError, match="token"):
        Telegram("nonsense")


# The REST webhook


async def test_the_rest_webhook(open_sqlite_door: Opener) -> None:
    """Each sender's own conversation, and what is wrong is told."""

    def app(runtime: Runtime) -> FastAPI:
        made = FastAPI(lifespan=runtime.lifespan)
        made.include_router(rest_webhook(runtime))
        return made

    async with open_sqlite_door(Bot(_echo), app=app) as door:

        async def say(sender: Any, message: Any) -> Any:
            body = {"sender": sender, "message": message}
            response = await door.client.post("/webhooks/rest/webhook", json=body)
            return response.json()

        both = await asyncio.gather(say("ada", "hi"), say("bo", "hi"))
        assert list(both) == [[{"recipient_id": s, "text": "1: hi"}] for s in ("ada", "bo")]
        assert await say("ada", "again") == [{"recipient_id": "ada", "text": "2: again"}]
        assert "error" in (await say("ada", "fail"))[0]["text"]
        bodies: list[Any] = [{}, [], {"sender": "a"}, {"sender": "a", "message": ""}, {"sender": 1}]
        for body in bodies:
            wrong = await door.client.post("/webhooks/rest/webhook", json=body)
            assert wrong.status_code == 422, json.dumps(body)


# Slack, at a Web API server of our own


class SlackAPI:
    """Slack's Web API, as far as a bot needs it; signs events like Slack."""

    secret = "signing-secret"

    def __init__(self) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.limited = 0
        self.away = False
        self.app = FastAPI()
        self.app.add_api_route("/{method}", self.call, methods=["POST"])

    async def call(self, method: str, request: Request) -> Response:
        if method == "auth.test" and self.away:
            return JSONResponse({"ok": False, "error": "internal_error"}, 500)
        if method == "auth.test":
            return JSONResponse({"ok": True, "team_id": "T1", "bot_id": "B1", "user_id": "UBOT"})
        if self.limited:
            self.limited -= 1
            return JSONResponse({"ok": False, "error": "ratelimited"}, 429, {"Retry-After": "0"})
        await self.sent.put(await request.json())
        return JSONResponse({"ok": True, "channel": "C1", "ts": "1.0"})

    async def said(self, count: int) -> list[tuple[str, str, str | None]]:
        async with asyncio.timeout(15):
            got = [await self.sent.get() for _ in range(count)]
        return [(one["channel"], one["text"], one.get("thread_ts")) for one in got]

    def signed(self, body: dict[str, Any], at: float | None = None) -> dict[str, Any]:
        """A request as Slack makes it."""
        return self.signed_text(json.dumps(body), "application/json", at)

    def signed_text(self, content: str, kind: str, at: float | None = None) -> dict[str, Any]:
        stamp = str(int(at or time.time()))
        base = f"v0:{stamp}:{content}".encode()
        signature = "v0=" + hmac.new(self.secret.encode(), base, "sha256").hexdigest()
        headers = {"Content-Type": kind, "X-Slack-Request-Timestamp": stamp}
        return {"content": content, "headers": {**headers, "X-Slack-Signature": signature}}


def slack_event(id: str, text: str, **event: Any) -> dict[str, Any]:
    told = {"type": "message", "channel": "D1", "channel_type": "im", "user": "U1", "ts": "5.1"}
    event = {**told, "text": text, **event}
    envelope = {"token": "t", "team_id": "T1", "api_app_id": "A1", "type": "event_callback"}
    return {**envelope, "event_id": id, "event": event, "event_time": 1}


async def test_slack(open_sqlite_door: Opener) -> None:
    """Signed events are taken once, answered where they were said; the rest is left or refused."""
    api = SlackAPI()
    async with serving(api.app) as url:
        slack = Slack("xoxb-1", api.secret, api=url)

        def app(runtime: Runtime) -> FastAPI:
            made = FastAPI(lifespan=runtime.lifespan)
            made.include_router(slack_webhook(runtime, slack))
            return made

        async with open_sqlite_door(Bot(_echo), app=app) as door:

            async def post(body: dict[str, Any], at: float | None = None) -> httpx.Response:
                return await door.client.post("/webhooks/slack", **api.signed(body, at))

            verified = await post({"type": "url_verification", "token": "t", "challenge": "abc"})
            assert "abc" in verified.text
            api.limited = 1
            for event in (
                slack_event("E1", "a &lt;b&gt;"),
                slack_event("E1", "a &lt;b&gt;"),
                slack_event("E2", "b"),
                slack_event("E3", "own", bot_id="B1"),
                slack_event("E4", "elsewhere", channel="C1", channel_type="channel"),
                slack_event("E5", "changed", subtype="message_changed"),
            ):
                assert (await post(event)).status_code == 200
            assert await api.said(2) == [("D1", "1: a &lt;b&gt;", None), ("D1", "2: b", None)]
            mention = {"type": "app_mention", "channel": "C1", "channel_type": None, "ts": "7.7"}
            assert (await post(slack_event("E6", "<@UBOT> c", **mention))).status_code == 200
            assert await api.said(1) == [("C1", "1: c", "7.7")]
            assert (await post(slack_event("E9", "cut \ud83d"))).status_code == 200
            assert await api.said(1) == [("D1", "3: cut \ufffd", None)]
            assert (await post(slack_event("E7", "old"), at=time.time() - 3600)).status_code == 401
            forged = api.signed(slack_event("E8", "x"))
            forged["headers"]["X-Slack-Signature"] = "v0=00"
            assert (await door.client.post("/webhooks/slack", **forged)).status_code == 401
            assert api.sent.empty()


# Several at once


async def test_one_session_on_several_channels(open_sqlite_door: Opener) -> None:
    """Two messengers, the REST webhook and the API are doors to one conversation, in one order;
    what is said elsewhere comes to the chat in which the person wrote last."""
    one, two = Fake(), Fake()
    two.name = "other"

    def app(runtime: Runtime) -> FastAPI:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            linked = {"ada": "user 1"}
            async with (
                runtime,
                Polling(runtime, one, session=lambda update: linked[update.to]),
                Polling(runtime, two, session=lambda update: linked[update.to]),
            ):
                yield

        made = FastAPI(lifespan=lifespan)
        made.include_router(rest_webhook(runtime, session=lambda sender: f"user {sender}"))
        return made

    async with open_sqlite_door(Bot(_echo), app=app) as door:
        one.inbox.put_nowait([update(1, "from one")])
        assert await one.sent(1) == [("ada", "1: from one")]
        two.inbox.put_nowait([update(1, "from two")])  # its own numbers: another update
        assert await two.sent(1) == [("ada", "2: from two")]
        body = {"sender": "1", "message": "from a widget"}
        response = await door.client.post("/webhooks/rest/webhook", json=body)
        assert response.json()[0]["text"] == "3: from a widget"
        assert (await door.runtime.ask("user 1", "from code")).text == "4: from code"
        history = await door.runtime.messages("user 1")
        channels = [m.metadata.get("channel") for m in history if m.role == "user"]
        assert channels == ["fake", "other", "rest", None]
        # The chat in which the person wrote last shows the whole conversation.
        later = [("ada", "3: from a widget"), ("ada", "4: from code")]
        assert await two.sent(2) == later
        assert one.outbox.empty()


async def test_a_long_text_is_read_beside_the_loop(tmp_path: Path) -> None:
    """There are texts of which a parser reads a second: meanwhile all others are served."""
    readers: list[threading.Thread] = []

    class Reading(Fake):
        def pieces(self, message: Message) -> Sequence[Message]:
            readers.append(threading.current_thread())
            return super().pieces(message)

    fake = Reading()
    async with running(tmp_path) as runtime, Polling(runtime, fake):
        fake.inbox.put_nowait([update(1, "[" * 5000), update(2, "short")])
        assert [text[:4] for _, text in await fake.sent(2)] == ["1: [", "2: s"]
    assert [reader is threading.main_thread() for reader in readers] == [False, True]
