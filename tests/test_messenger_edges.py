"""Small inputs at the edges of messengers, of which people have told in public reports."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st

from conftest import serving
from test_messenger_doors import FILE, SETTINGS, put, reply, telegram
from test_messengers import BotAPI
from test_whatsapp import GraphAPI, call, text
from turnwise import Ask, Bot, Message, Runtime, Turn
from turnwise.conversation import Attachment
from turnwise.conversation.asks import Asked
from turnwise.errors import NotFound, TooLarge
from turnwise.messengers.markup import runs, split
from turnwise.messengers.platform import Update, parsed
from turnwise.messengers.slack import Slack
from turnwise.messengers.slack_events import Bot as SlackBot
from turnwise.messengers.slack_events import message as slack_message
from turnwise.messengers.telegram import Telegram, telegram_webhook
from turnwise.messengers.whatsapp import WhatsApp, whatsapp_webhook

TELEGRAM = Telegram(BotAPI.token)
SLACK = Slack("xoxb-1", "secret")
WHATSAPP = WhatsApp("4711", "t", "secret")
PHOTO = {"photo": [{**FILE, "width": 1, "height": 1}]}
WHO = {"id": 7, "is_bot": False, "first_name": "Ada"}
GROUP = {"id": -100, "type": "supergroup", "title": "All", "is_forum": True}


def message(id: int, **more: Any) -> dict[str, Any]:
    chat = {"id": 7, "type": "private"}
    return {
        "update_id": id, "message": {"message_id": id, "date": 1, "chat": chat, "from": WHO, **more}
    }  # fmt: skip


def said(text: str) -> tuple[str, str, str]:
    """What Telegram, Slack and WhatsApp get of a text that is one piece."""
    platforms = (TELEGRAM, SLACK, WHATSAPP)
    one, two, three = ("".join(p.text for p in one.pieces(Message(text))) for one in platforms)
    return one, two, three


# Telegram


@asynccontextmanager
async def hooked(sqlite_url: str) -> AsyncIterator[tuple[BotAPI, Any]]:
    """A bot that Telegram calls; `post` is one call, which the next one of a chat follows."""
    api = BotAPI()
    async with serving(api.app) as url:
        runtime = Runtime(Bot(reply), sqlite_url, settings=SETTINGS)
        app = FastAPI(lifespan=runtime.lifespan)
        app.include_router(telegram_webhook(runtime, Telegram(api.token, api=url), "s"))
        headers = {"X-Telegram-Bot-Api-Secret-Token": "s"}
        async with (
            serving(app, lifespan="on") as door,
            httpx.AsyncClient(base_url=door, headers=headers, timeout=20) as client,
        ):

            async def post(update: Any) -> int:
                body = update if isinstance(update, bytes) else json.dumps(update)
                return (await client.post("/webhooks/telegram", content=body)).status_code

            yield api, post


async def test_an_album_by_webhook_is_one_turn(sqlite_url: str) -> None:
    """Telegram sends its next picture when this one is acknowledged; all are answered together, and
    one that comes twice is there once."""
    async with hooked(sqlite_url) as (api, post):
        for n in (1, 2, 2, 3):
            caption = {"caption": "receipts"} if n == 1 else {}
            assert await post(message(n, media_group_id="g", **PHOTO, **caption)) == 200
        found = await next_call(api, "sendMessage")
        assert found["text"] == "you: receipts ['image', 'image', 'image']"
        edited = message(3, media_group_id="g", **PHOTO, caption="bills")
        edited |= {"edited_message": {**edited.pop("message"), "edit_date": 2}, "update_id": 4}
        assert await post(edited) == 200
        found = await next_call(api, "sendMessage")
        assert found["text"] == "you: bills ['image', 'image', 'image']"


async def test_an_album_whose_caption_is_edited(sqlite_url: str) -> None:
    """All of its pictures stay, whichever of them has the caption; each caption counts."""
    async with telegram(sqlite_url) as (api, _):
        for n in (1, 2):
            put(api, n, media_group_id="g", **PHOTO, caption=f"caption {n}")
        assert await api.texts(1) == ["you: caption 1\ncaption 2 ['image', 'image']"]
        changed = put(api, 2, media_group_id="g", **PHOTO, caption="receipts")
        changed |= {"edited_message": {**changed.pop("message"), "edit_date": 2}, "update_id": 3}
        api.arrived.set()
        assert await api.texts(1) == ["you: receipts ['image', 'image']"]


async def test_a_place_that_moves_is_no_question(sqlite_url: str) -> None:
    """Telegram tells each move of a shared place as an edit; the next message is answered."""
    async with telegram(sqlite_url) as (api, _):
        at = {"latitude": 1.0, "longitude": 2.0, "live_period": 900}
        put(api, 1, location=at)
        assert await api.texts(1) == ["you:  ['location']"]
        moved = put(api, 1, location={**at, "latitude": 3.0})
        moved |= {"edited_message": {**moved.pop("message"), "edit_date": 2}, "update_id": 2}
        api.arrived.set()
        api.say(3, "there")
        assert await api.texts(1) == ["you: there"]


async def test_buttons_in_old_messages(sqlite_url: str) -> None:
    """Telegram tells of them neither the text nor the topic: the answer counts where it was asked,
    and pressed once more the button is what it said."""
    async with telegram(sqlite_url) as (api, _):
        topic = {"message_thread_id": 11, "is_topic_message": True}
        put(api, 1, text="order", chat=GROUP, **topic)
        asked = await next_call(api, "sendMessage")
        data = json.loads(asked["reply_markup"])["inline_keyboard"][1][0]["callback_data"]
        assert len(data) <= 64
        old = {"message_id": 1, "date": 0, "chat": GROUP}
        for n, words in ((2, "chosen: large"), (3, "you: large")):
            press = {"id": f"c{n}", "from": WHO, "chat_instance": "x", "message": old, "data": data}
            api.pending.append({"update_id": n, "callback_query": press})
            api.arrived.set()
            found = await next_call(api, "sendMessage")
            assert (found["text"], found["message_thread_id"]) == (words, "11")


@pytest.mark.parametrize("data", ["menu|1", "other|1|5", "menu"])
def test_buttons_that_are_not_ours(data: str) -> None:
    """What they hold is what the person says, in the chat where they are."""
    old = {"message_id": 1, "date": 0, "chat": GROUP}
    press = {"id": "c", "from": WHO, "chat_instance": "x", "message": old, "data": data}
    (update,) = TELEGRAM.read([{"update_id": 1, "callback_query": press}])
    assert (update.text, update.pressed, update.to) == (data, None, {"chat": -100})


async def next_call(api: BotAPI, method: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (found := await api.sent.get())["method"] != method:
            pass
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/feedback\nsome text", ("feedback", "some text")),
        ("/feedback@ours_bot  some text", ("feedback", "some text")),
        ("/feedback", ("feedback", None)),
        ("/ 5 apples", ("", "5 apples")),
    ],
)
def test_commands_end_at_any_space(text: str, expected: tuple[str, str | None]) -> None:
    """Also at the end of a line."""
    (update,) = TELEGRAM.read([message(1, text=text)])
    assert (update.metadata["command"], update.metadata.get("argument")) == expected


async def test_who_is_addressed(sqlite_url: str) -> None:
    """Neither a message in a topic that the bot has made, nor a name that only begins like the
    bot's, nor an address in which it is; the bot by its name without an @ is."""
    ours = {"id": 123456, "is_bot": True, "first_name": "Ours"}
    created = {"forum_topic_created": {"name": "t", "icon_color": 1}}
    root = {"message_id": 11, "date": 1, "chat": GROUP, "from": ours, **created}
    topic = {"message_thread_id": 11, "is_topic_message": True, "reply_to_message": root}
    mail = {"entities": [{"type": "email", "offset": 5, "length": 14}]}
    named = {"entities": [{"type": "text_mention", "offset": 0, "length": 4, "user": ours}]}
    async with telegram(sqlite_url, addressed=True) as (api, _):
        put(api, 1, text="for the others", chat=GROUP, **topic)
        put(api, 2, text="hello @ours_bot2", chat=GROUP)
        put(api, 3, text="mail x@ours_bot.com", chat=GROUP, **mail)
        put(api, 4, text="Ours, hello", chat=GROUP, **named)
        assert await api.texts(1) == ["you: Ours, hello"]


async def growing(turn: Turn) -> AsyncIterator[str]:
    """A text that is shown, and changed once or twice, before it is complete."""
    for i in range(4):
        yield f"word {i} "
        await asyncio.sleep(0.9)


@pytest.mark.parametrize("code", [403, 400])
async def test_blocked_while_a_text_grows(sqlite_url: str, code: int) -> None:
    """Nothing is tried again and again: it is told at once when the text is complete."""
    told: asyncio.Queue[str] = asyncio.Queue()

    api = BotAPI()
    bot = Bot(growing)
    bot.undelivered(lambda session, message, why: told.put_nowait(why))
    from turnwise.messengers.polling import Polling

    async with (
        serving(api.app) as url,
        Runtime(bot, sqlite_url, settings=SETTINGS) as runtime,
        Polling(runtime, Telegram(api.token, api=url), first_pause=0.05),
    ):
        api.say(1, "go")
        await next_call(api, "sendMessage")
        words = "Forbidden: bot was blocked by the user" if code == 403 else "chat not found"
        for method in ("sendMessage", "editMessageText"):
            api.refused[method] = code, words, {}
        async with asyncio.timeout(15):
            assert await told.get()
        assert api.calls.count("editMessageText") <= 3


async def test_a_text_that_is_deleted_while_it_grows(sqlite_url: str) -> None:
    """It is sent anew, whole, when it is complete."""

    async with telegram(sqlite_url, handler=growing) as (api, _):
        api.say(1, "go")
        await next_call(api, "sendMessage")
        api.refused["editMessageText"] = 400, "Bad Request: message to edit not found", {}
        found = await next_call(api, "sendMessage")
        assert found["text"].strip() == "word 0 word 1 word 2 word 3"


async def test_a_chat_that_moves_while_a_text_grows(sqlite_url: str) -> None:
    """The whole text is sent where the chat is now."""

    async with telegram(sqlite_url, handler=growing) as (api, _):
        api.say(1, "go")
        await next_call(api, "sendMessage")
        words = "Bad Request: group chat was upgraded to a supergroup chat"
        api.refused["editMessageText"] = 400, words, {"migrate_to_chat_id": -1007}
        found = await next_call(api, "sendMessage")
        assert found["chat_id"] == "-1007"


async def test_a_picture_that_is_none(sqlite_url: str) -> None:
    """What Telegram does not take as a picture, it gets as a file."""

    async def chart(turn: Turn) -> Message:
        return Message("", [Attachment("image/png", "data:image/png;base64,iVBORw0KGgo=", "c.png")])

    async with telegram(sqlite_url, handler=chart) as (api, _):
        api.refused["sendPhoto"] = 400, "Bad Request: PHOTO_INVALID_DIMENSIONS", {}
        api.say(1, "go")
        await next_call(api, "sendDocument")


async def test_files_that_are_too_big() -> None:
    """For the Bot API, or for us, also where Telegram does not tell the size."""
    api = BotAPI()
    api.app.add_api_route("/file/bot{token}/a.bin", lambda: b"x" * 3000, methods=["GET"])
    async with serving(api.app) as url:
        bot = Telegram(api.token, api=url)
        try:
            api.refused["getFile"] = 400, "Bad Request: file is too big", {}
            with pytest.raises(TooLarge):
                await bot.open("telegram:f", 10**9)
            api.refused["getFile"] = 400, "Bad Request: wrong file_id", {}
            with pytest.raises(NotFound):
                await bot.open("telegram:f", 10**9)
        finally:
            await bot.close()


async def test_half_of_a_character(sqlite_url: str) -> None:
    """Platforms cut texts by units: it is a sign for what is missing, and refuses no call."""
    async with hooked(sqlite_url) as (api, post):
        body = json.dumps(message(1, text="cut XX")).replace("XX", "\\ud83d").encode()
        assert await post(body) == 200
        assert await api.texts(1) == ["you: cut \ufffd"]
        assert await post(b'{"update_id": ') == 422


def test_what_is_no_json() -> None:
    """Halves are mended wherever they stand; anything else that is wrong is an error."""
    assert parsed(b'{"\\ud83d": ["a\\udc00", "\\ud83d\\ude00"]}') == {"\ufffd": ["a\ufffd", "😀"]}
    for body in (b"", b"{", b"[NaN]", b"[" * 200_000):
        with pytest.raises(ValueError, match=r".+"):
            parsed(body)


# WhatsApp


async def test_what_whatsapp_does_not_deliver(sqlite_url: str) -> None:
    """It says so in a later call: the piece counts as refused, and the bot is told, once."""
    told: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue()
    bot = Bot(reply)
    bot.undelivered(lambda session, piece, why: told.put_nowait((session, piece.text, why)))
    api = GraphAPI()
    async with serving(api.app) as url:
        runtime = Runtime(bot, sqlite_url, settings=SETTINGS)
        app = FastAPI(lifespan=runtime.lifespan)
        number = WhatsApp("4711", "t", "secret", api=f"{url}/v1")
        app.include_router(whatsapp_webhook(runtime, number, "v"))
        async with serving(app, lifespan="on") as door, httpx.AsyncClient(base_url=door) as client:

            async def post(given: Any) -> int:
                body = json.dumps(given).encode()
                sign = "sha256=" + hmac.new(b"secret", body, "sha256").hexdigest()
                headers = {"X-Hub-Signature-256": sign}
                sent = await client.post("/webhooks/whatsapp", content=body, headers=headers)
                return sent.status_code

            await post(call(text("1", "hi")))
            await api.next()
            while not (await runtime.gateway.turn("whatsapp:4711:49", 1)).delivery:
                await asyncio.sleep(0.01)
            failed = call()
            value = failed["entry"][0]["changes"][0]["value"]
            error = {"code": 131047, "title": "Re-engagement message"}
            status = {"id": "wamid.o", "status": "failed", "recipient_id": "49", "errors": [error]}
            value["statuses"] = [{"id": "x", "status": "read"}, "odd", status]
            assert [await post(failed), await post(failed)] == [200, 200]
            async with asyncio.timeout(10):
                found = await told.get()
            assert found == ("whatsapp:4711:49", "you: hi", "Re-engagement message 131047")
            (piece,) = (await runtime.gateway.turn("whatsapp:4711:49", 1)).delivery
            assert (piece["state"], piece["why"]) == ("refused", found[2])
            assert told.empty()


async def test_somebody_who_hides_their_number() -> None:
    """WhatsApp gives an id for this business instead, by which they are answered."""
    given = {"from_user_id": "US.1", "id": "w", "type": "text", "text": {"body": "hi"}}
    made = call(given)
    value = made["entry"][0]["changes"][0]["value"]
    value["contacts"] = [{"user_id": "US.1", "profile": {"name": "Ada"}}]
    (update,) = WHATSAPP.updates(made)
    assert (update.session, update.to) == ("whatsapp:4711:US.1", {"recipient": "US.1"})
    assert update.metadata["from"] == "Ada"
    api = GraphAPI()
    async with serving(api.app) as url:
        number = WhatsApp("4711", "t", "secret", api=f"{url}/v1")
        await number.send(update, Message("hello"))
        assert (await api.next())["recipient"] == "US.1"
        await number.close()


async def test_rows_are_as_long_as_allowed(sqlite_url: str) -> None:
    """A long choice is a row whose title and description are cut, and not a refused message."""
    choices = ["x" * 86, "b", "c", "d"]
    api = GraphAPI()
    async with serving(api.app) as url:
        number = WhatsApp("4711", "t", "secret", api=f"{url}/v1")
        (update,) = number.updates(call(text("1", "hi")))
        (piece,) = number.pieces(Ask("Which?", choices=choices))
        await number.send(update, piece)
        row = (await api.next())["interactive"]["action"]["sections"][0]["rows"][0]
        assert (len(row["title"]), len(row["description"])) == (24, 72)
        await number.close()


# Slack


async def test_files_of_other_workspaces(sqlite_url: str) -> None:
    """Of a shared file there is only an id, and Slack is asked for the rest."""
    told = {"id": "F1", "mimetype": "image/png", "url_private": "https://files.slack.com/x"}
    app = FastAPI()
    app.add_api_route(
        "/api/files.info", lambda: {"ok": True, "file": told}, methods=["GET", "POST"]
    )
    async with serving(app) as url:
        slack = Slack("xoxb-1", "secret", api=f"{url}/api")
        event = {"type": "message", "channel": "D1", "channel_type": "im", "ts": "1", "user": "U"}
        body: dict[str, Any] = {"event": {**event, "subtype": "file_share", "files": [
            {"id": "F1", "file_access": "check_file_info"}, "odd",
        ]}}  # fmt: skip
        body["event"]["files"].pop()
        await slack.complete(body)
        update = slack_message(body, SlackBot({}, True))
        assert update is not None
        assert [one.type for one in update.attachments] == ["image/png"]
        await slack.close()


def test_signs_that_stand_for_something_else_here() -> None:
    """A NUL in a text from Slack does not become a bracket."""
    event = {"channel": "D1", "channel_type": "im", "ts": "1", "text": "a\0b <@U1>"}
    update = slack_message({"event": event}, SlackBot({}, True))
    assert update is not None
    assert update.text == "ab <@U1>"


async def test_an_attachment_is_a_link_and_no_more() -> None:
    """Neither its name nor its address ends the link, or calls a channel."""
    sent: asyncio.Queue[str] = asyncio.Queue()
    app = FastAPI()

    @app.post("/api/chat.postMessage")
    async def post(request: Request) -> dict[str, Any]:
        sent.put_nowait((await request.json())["text"])
        return {"ok": True, "ts": "1"}

    async with serving(app) as url:
        slack = Slack("xoxb-1", "secret", api=f"{url}/api")
        file = Attachment("image/png", "https://a.b/x|y>.png", "a> <!channel> <b")
        update = Update("1", "s", "", {"channel": "C", "thread": None})
        await slack.send(update, Message("", [file]))
        name = "a&gt; &lt;!channel&gt; &lt;b"
        assert await sent.get() == f"<https://a.b/x%7Cy%3E.png|{name}>"
        await slack.close()


# Markup


@pytest.mark.parametrize(
    ("text", "telegram_", "slack", "whatsapp"),
    [
        (r"2 \* 3 = 6", "2 * 3 = 6", "2 * 3 = 6", "2 * 3 = 6"),
        (r"C:\new &amp; old", r"C:\new & old", r"C:\new &amp; old", r"C:\new & old"),
        ("> **q** text", "q text", "&gt; *q* text", "> *q* text"),
        ("> a\n> **b**\n> c", "a\nb\nc", "&gt; a\n&gt; *b*\n&gt; c", "> a\n> *b*\n> c"),
        (
            "[Call](tel:+49) us", "Call (+49) us", "<tel:+49|Call> us", "Call (+49) us",
        ),
        (
            "[Mail](mailto:a@b.c)", "Mail", "<mailto:a@b.c|Mail>", "Mail (a@b.c)",
        ),
        (
            "[Docs](docs.b.c) **x**",
            "Docs (docs.b.c) x", "Docs (docs.b.c) *x*", "Docs (docs.b.c) *x*",
        ),
        (
            "*[a](ftp://x/y_z)* [`f()`](ftp://c_d)", "a (ftp://x/y_z) f() (ftp://c_d)",
            "_a_ (ftp://x/y_z) `f()` (ftp://c_d)", "_a_ (ftp://x/y_z) `f()` (ftp://c_d)",
        ),
    ],
)  # fmt: skip
def test_texts_on_three_platforms(text: str, telegram_: str, slack: str, whatsapp: str) -> None:
    """Escapes are read, quotations begin their lines, and no address is lost."""
    assert said(text) == (telegram_, slack, whatsapp)


def test_tables_behind_odd_separators() -> None:
    """Characters that only Python takes for the end of a line shift no line."""
    table = "one\u2028two\x85three\x0b\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    for found in said(table):
        assert "| 1 | 2 |" in found


FAMILY = "👨‍👩‍👧‍👦"


SEEN = st.sampled_from([FAMILY, "🇩🇪", "e\u0301", "x"])


@given(st.lists(SEEN, min_size=1, max_size=60), st.integers(12, 40))
def test_a_family_is_not_parted(seen: list[str], limit: int) -> None:
    """A piece ends where a reader sees a character end, and nothing is lost."""
    text = "".join(seen)
    pieces = ["".join(run.text for run in piece) for piece in split(runs(text), limit)]
    assert "".join(pieces) == text
    assert not any(piece.startswith(("\u200d", "\u0301")) for piece in pieces[1:])


# Questions


@pytest.mark.parametrize(
    ("choices", "typed", "expected"),
    [
        (["0", "1", "2"], "1", "1"),
        (["a", "1"], "1", "1"),
        (["Yes", "yes"], "yes", "yes"),
        (["Yes", "No"], " NO ", "No"),
        (["a", "b"], "2", "b"),
        (["a", "b"], "3", None),
    ],
)
def test_a_choice_before_its_number(choices: list[str], typed: str, expected: str | None) -> None:
    """What is typed is a choice as it stands, else in other letters, else by its number."""
    assert Asked("a", choices=choices).typed(typed) == expected
