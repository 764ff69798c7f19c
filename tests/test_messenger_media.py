"""Files and long answers on messengers: bytes on demand, texts that grow, what is not delivered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from conftest import serving
from test_messenger_doors import SETTINGS, put, telegram
from test_messenger_outbox import Pager, update
from test_messengers import BotAPI, SlackAPI, slack_event
from test_whatsapp import GraphAPI, call, message, number
from turnwise import Bot, Message, Runtime, Settings, Turn
from turnwise.conversation import Attachment
from turnwise.errors import TurnwiseError
from turnwise.messengers import delivery
from turnwise.messengers.courier import Courier
from turnwise.messengers.platform import Moved, Refused, Update
from turnwise.messengers.polling import Polling
from turnwise.messengers.rasa import rest_webhook
from turnwise.messengers.slack import Slack, slack_webhook
from turnwise.messengers.telegram import Telegram
from turnwise.stores import header

PHOTO = b"\x89PNG and so on"


async def looked_at(turn: Turn) -> str:
    """Says what the person's files hold."""
    said = []
    for attachment in turn.message.attachments:
        try:
            said.append(str(len(await turn.file(attachment))))
        except TurnwiseError as error:
            said.append(error.code)
    return " ".join(said) or "no file"


class TelegramFiles:
    """Adds files to a Bot API server: `f` has some bytes, `big` too many."""

    def __init__(self, api: BotAPI) -> None:
        self.away = 0
        self._next = api.call
        self._token = api.token
        api.app.router.routes.clear()
        api.app.add_api_route("/bot{token}/{method}", self.call, methods=["POST"])
        api.app.add_api_route("/file/bot{token}/{path}", self.file, methods=["GET"])

    async def call(self, token: str, method: str, request: Request) -> Any:
        if method != "getFile":
            return await self._next(token, method, request)
        async with request.form() as form:
            id = str(form["file_id"])
        if self.away:
            self.away -= 1
            return {"ok": False, "error_code": 502, "description": "Bad Gateway"}
        if id == "gone":
            wrong = {"ok": False, "error_code": 400, "description": "Bad Request: wrong file_id"}
            return JSONResponse(wrong, 400)
        size = 10**9 if id == "big" else len(PHOTO)
        found = {"file_id": id, "file_unique_id": "u", "file_size": size, "file_path": f"{id}.png"}
        return {"ok": True, "result": found}

    async def file(self, token: str, path: str) -> Response:
        assert (token, path) == (self._token, "f.png")
        return Response(PHOTO)


async def test_files_of_people_on_telegram(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their bytes are there when a handler wants them, also if Telegram does not answer at once;
    one that is gone or too large is an error of that file. Another door's message that names
    the same address gets nothing."""
    monkeypatch.setattr("turnwise.media.PAUSES", (0.01, None))
    api = BotAPI()
    files = TelegramFiles(api)
    files.away = 1
    async with (
        serving(api.app) as url,
        Runtime(Bot(looked_at), sqlite_url, settings=SETTINGS) as runtime,
        Polling(runtime, Telegram(api.token, api=url), first_pause=0.05),
    ):
        for id, file in enumerate(("f", "gone", "big"), 1):
            named = {"file_id": file, "file_unique_id": "u"}
            put(api, id, photo=[{**named, "width": 1, "height": 1}])
        assert await api.texts(3) == [str(len(PHOTO)), "not_found", "too_large"]
        files.away = 9
        put(api, 4, voice={"file_id": "f", "file_unique_id": "u", "duration": 1})
        assert await api.texts(1) == ["file_unavailable"]
        files.away = 0
        stranger = await runtime.ask("web", "", attachments=[Attachment("image", "telegram:f")])
        assert stranger.text == "not_found"


async def test_files_of_people_on_whatsapp(sqlite_url: str) -> None:
    """The same by a media id, which becomes an address that is good for some minutes."""
    async with number(sqlite_url, looked_at) as (api, post, _):
        add_media(api)
        for id in ("7", "8"):
            await post(call(message(id, "image", {"id": id, "mime_type": "image/png"})))
        said = [(await api.next())["text"]["body"] for _ in range(2)]
        assert said == [str(len(PHOTO)), "not_found"]


def add_media(api: GraphAPI) -> None:
    """Media 7 is there, no other one is."""

    async def about(id: str, request: Request) -> Response:
        if id != "7":
            error = {"message": "no", "type": "GraphMethodException", "code": 100}
            return JSONResponse({"error": error}, 400)
        found = {"messaging_product": "whatsapp", "id": id, "mime_type": "image/png"}
        more = {"sha256": "x", "file_size": len(PHOTO), "url": f"{request.base_url}bytes"}
        return JSONResponse({**found, **more})

    async def content(request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer token"
        return Response(PHOTO)

    api.app.add_api_route("/bytes", content, methods=["GET"])
    api.app.add_api_route("/v1/{id}", about, methods=["GET"])


async def test_files_of_people_on_slack(sqlite_url: str) -> None:
    """The same by their private addresses, with the bot's token, which no other server gets."""
    api = SlackAPI()

    async def private(name: str, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer xoxb-1" or name == "secret":
            return Response(status_code=302, headers={"Location": "/login"})
        return Response(PHOTO * (100_000 if name == "big" else 1))

    api.app.add_api_route("/files/{name}", private, methods=["GET"])
    settings = Settings(_env_file=None, grace=0.5, max_file=100_000)
    async with serving(api.app) as url:
        runtime = Runtime(Bot(looked_at), sqlite_url, settings=settings)
        app = FastAPI(lifespan=runtime.lifespan)
        app.include_router(slack_webhook(runtime, Slack("xoxb-1", api.secret, api=url)))
        async with serving(app, lifespan="on") as door, httpx.AsyncClient(base_url=door) as client:
            addresses = [f"{url}/files/{name}" for name in ("a", "secret", "big")]
            addresses.append(url.replace("127.0.0.1", "localhost") + "/files/a")
            files = [{"mimetype": "image/png", "url_private": one} for one in addresses]
            event = slack_event("E1", "", subtype="file_share", files=files)
            answer = await client.post("/webhooks/slack", **api.signed(event))
            assert answer.status_code == 200
            ((_, text, _),) = await api.said(1)
    assert text == f"{len(PHOTO)} not_found too_large not_found"


# Texts that grow


async def growing(turn: Turn) -> AsyncIterator[str]:
    """Says words slowly."""
    for word in ("One ", "two ", "three ", "four"):
        yield word
        await asyncio.sleep(0.6)


@pytest.mark.parametrize("grow", [True, False])
async def test_a_long_answer_grows(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, grow: bool
) -> None:
    """It is one message, which is changed until it is complete; or is sent when it is complete."""
    monkeypatch.setattr(delivery, "GROWS", 0.1)
    monkeypatch.setattr("turnwise.messengers.telegram.PACE", 0.4)
    async with telegram(sqlite_url, growing, grow=grow) as (api, runtime):
        api.say(1, "go")
        calls: list[dict[str, Any]] = []
        async with asyncio.timeout(20):
            while not calls or calls[-1].get("text") != "One two three four":
                calls.append(await api.sent.get())
        told = [one for one in calls if one["method"] != "sendChatAction"]
        methods = [one["method"] for one in told]
        if not grow:
            assert methods == ["sendMessage"]
            return
        assert methods[0] == "sendMessage"
        assert set(methods[1:]) == {"editMessageText"}
        assert len(methods) >= 3
        texts = [one["text"] for one in told]
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        api.say(2, "go")
        await api.texts(1)
        record = await runtime.gateway.turn("telegram:123456:7", 1)
        assert [(one["piece"], one["state"]) for one in record.delivery] == [(0, "sent")]


class Growing(Pager):
    """A platform whose messages can be changed, twice a second."""

    def pace(self, update: Update) -> float | None:
        return 0.2

    def shown(self) -> list[str]:
        """The messages as the person sees them now."""
        texts = [text for _, text in self.sent]
        for id, text in self.edited:
            texts[int(id) - 1] = text
        return texts


async def test_a_text_that_grows_over_pieces_and_errors(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the platform does not take while a text grows is made good when it is complete; a text
    of several pieces is complete in each."""
    monkeypatch.setattr(delivery, "GROWS", 0.05)
    pager = Growing(edits=True)
    change, refused = pager.edit, 0

    async def busy(update: Update, id: str, message: Message) -> bool:
        nonlocal refused
        refused += 1
        if refused in (1, 3):
            error = ConnectionError("slow down")
            error.retry_after = 0.05  # type: ignore[attr-defined]
            raise error
        return await change(update, id, message)

    monkeypatch.setattr(pager, "edit", busy)
    async with (
        Runtime(Bot(growing), sqlite_url, settings=SETTINGS) as runtime,
        Courier(runtime, pager) as courier,
    ):
        await courier.take(update(1, "go"))
        async with asyncio.timeout(20):
            while pager.shown() != ["One two th", "ree four"]:
                await asyncio.sleep(0.05)
        while (await runtime.gateway.turn("pager:ada", 1)).open:
            await asyncio.sleep(0.05)
        await runtime.say("pager:ada", "end")
        await pager.until(3)
        assert pager.shown() == ["One two th", "ree four", "end"]


async def test_files_keep_their_places(sqlite_url: str) -> None:
    """A file is sent between the texts it was said between, while its turn goes on, on a messenger
    and to a widget."""
    gate = asyncio.Event()

    async def reply(turn: Turn) -> AsyncIterator[Message | str]:
        yield Message("look:", [Attachment("image/png", "http://x/a.png")])
        yield Message(attachments=[Attachment("image/png", "http://x/b.png")])
        yield "nice?"
        await gate.wait()

    pager = Pager()
    settings = Settings(_env_file=None, grace=0.5)
    runtime = Runtime(Bot(reply), sqlite_url, settings=settings)
    app = FastAPI(lifespan=runtime.lifespan)
    app.include_router(rest_webhook(runtime))
    async with serving(app, lifespan="on") as url, Courier(runtime, pager) as courier:
        await courier.take(update(1, "go"))
        wanted = ["look:", "http://x/a.png", "http://x/b.png"]
        assert await pager.until(3) == wanted
        gate.set()
        assert await pager.until(4) == [*wanted, "nice?"]
        body = {"sender": "ada", "message": "go"}
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{url}/webhooks/rest/webhook?stream=true", json=body)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    said = [line.get("text") or line.get("image") for line in lines]
    assert [one for one in said if one] == [*wanted, "nice?"]


# What is not delivered, and what holds nobody up


async def test_the_bot_hears_what_is_not_delivered(sqlite_url: str) -> None:
    """Whichever door sends: each function is told of each piece; one that raises hides none."""
    heard: list[tuple[str, str, str]] = []
    bot = Bot(lambda turn: turn.text)
    enough = asyncio.Event()

    @bot.undelivered
    def broken(session: str, message: Message, reason: str) -> None:
        raise RuntimeError("a user's own mistake")

    @bot.undelivered
    async def hear(session: str, message: Message, reason: str) -> None:
        heard.append((session, message.text, reason))
        enough.set()

    pager = Pager()
    pager.fails = lambda text: Refused("blocked")
    async with Runtime(bot, sqlite_url, settings=SETTINGS) as runtime, Courier(runtime, pager) as c:
        await c.take(update(1, "hello"))
        async with asyncio.timeout(20):
            await enough.wait()
    assert heard == [("pager:ada", "hello", "blocked")]


async def test_a_session_of_a_newer_version_holds_nobody_up(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its person is told; everybody else is answered."""
    bot = Bot(lambda turn: f"you: {turn.text}")
    with monkeypatch.context() as newer:
        newer.setattr(header, "FORMAT", header.FORMAT + 1)
        async with Runtime(bot, sqlite_url, settings=SETTINGS) as runtime:
            pager = Pager()
            async with Courier(runtime, pager) as courier:
                made = Update("0", "telegram:123456:7", "hi", {"chat": 7})
                await courier.take(made)
                await pager.until(1)
    async with telegram(sqlite_url, lambda turn: f"you: {turn.text}") as (api, _):
        api.say(1, "hi", chat=7)
        api.say(2, "hi", chat=8)
        async with asyncio.timeout(20):
            sent = {one["chat_id"]: one["text"] for one in [await api.sent.get() for _ in range(2)]}
    assert sent["8"] == "you: hi"
    assert "being updated" in sent["7"]


async def test_nothing_is_left_of_a_chat_that_moved(sqlite_url: str) -> None:
    """When its session is deleted, the name that it had is forgotten, too."""
    pager = Pager()
    moved = [Moved({"who": "new"}, "pager:new")]
    pager.fails = lambda text: moved.pop() if moved else None
    async with (
        Runtime(Bot(lambda turn: turn.text), sqlite_url, settings=SETTINGS) as runtime,
        Courier(runtime, pager) as courier,
    ):
        await courier.take(update(1, "hi"))
        await pager.until(1)
        await runtime.gateway.deliveries.sweep()
        assert await runtime.store.published("moved:") == {"moved:pager:new": b"pager:ada"}
        await runtime.gateway.delete("pager:ada")
        await runtime.gateway.deliveries.sweep()
        assert await runtime.store.published("moved:") == {}
