"""What people take for granted on Telegram, on Slack and in a widget: buttons, albums, markup."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from conftest import serving
from test_messengers import BotAPI, SlackAPI, slack_event
from turnwise import Ask, Bot, Message, Runtime, Settings, Turn
from turnwise.conversation import Attachment
from turnwise.errors import NotFound
from turnwise.messengers.markup import Run, runs, split
from turnwise.messengers.polling import Polling
from turnwise.messengers.rasa import rest_webhook
from turnwise.messengers.slack import Slack, slack_webhook
from turnwise.messengers.telegram import Telegram
from turnwise.messengers.telegram_pieces import units
from turnwise.messengers.whatsapp import WhatsApp

SETTINGS = Settings(_env_file=None, grace=0.5)
FILE = {"file_id": "f", "file_unique_id": "u"}


async def reply(turn: Turn) -> Message:
    if turn.answers:
        return Message(f"chosen: {turn.answers[0].value}")
    if turn.text == "order":
        return Ask("Which size?", choices=["small", "large"])
    kinds = [one.type for one in turn.message.attachments] if turn.message else []
    return Message(f"you: {turn.text} {kinds if kinds else ''}".strip())


@asynccontextmanager
async def telegram(
    sqlite_url: str, handler: Any = reply, failures: int = 0, **more: Any
) -> AsyncIterator[tuple[BotAPI, Runtime]]:
    """A bot that is polled at a Bot API server of our own, which fails so often at first."""
    api = BotAPI()
    api.failures = failures
    async with (
        serving(api.app) as url,
        Runtime(Bot(handler), sqlite_url, settings=SETTINGS) as runtime,
        Polling(runtime, Telegram(api.token, api=url, **more), first_pause=0.05),
    ):
        yield api, runtime


def put(api: BotAPI, id: int, **more: Any) -> dict[str, Any]:
    """A message without a text, or with more than one."""
    made = api.say(id, "")
    del made["message"]["text"]
    named = [
        {"type": "mention", "offset": found.start(), "length": len(found.group())}
        for found in re.finditer(r"@\w+", more.get("text", ""))
    ]
    made["message"] |= {"entities": named, **more}
    return made


async def test_buttons_on_telegram(sqlite_url: str) -> None:
    """A question has its choices as buttons; a pressed one is the answer, and Telegram is told; a
    typed choice, or its number, is one too. A button of no question is what the person says."""
    async with telegram(sqlite_url) as (api, _):
        api.say(1, "order")
        async with asyncio.timeout(20):
            asked = await api.sent.get()
        rows = json.loads(asked["reply_markup"])["inline_keyboard"]
        assert [button["text"] for (button,) in rows] == ["small", "large"]
        who = {"id": 7, "is_bot": False, "first_name": "Ada"}
        press = {"id": "c1", "from": who, "chat_instance": "x"}
        press["data"] = rows[1][0]["callback_data"]
        api.pending.append({"update_id": 2, "callback_query": press})
        api.arrived.set()
        async with asyncio.timeout(20):
            sent = [await api.sent.get(), await api.sent.get()]
        assert sorted(one["method"] for one in sent) == ["answerCallbackQuery", "sendMessage"]
        assert "chosen: large" in [one.get("text") for one in sent]
        api.say(3, "order")
        await api.texts(1)
        api.say(4, " SMALL")
        assert await api.texts(1) == ["chosen: small"]
        other = {**press, "id": "c2", "data": "menu"}
        api.pending.append({"update_id": 5, "callback_query": other})
        api.arrived.set()
        async with asyncio.timeout(20):
            sent = [await api.sent.get(), await api.sent.get()]
        assert "you: menu" in [one.get("text") for one in sent]


async def test_a_button_of_yesterday_on_telegram(sqlite_url: str) -> None:
    """Pressed again, it is what it says, and not its data."""
    async with telegram(sqlite_url) as (api, _):
        api.say(1, "order")
        async with asyncio.timeout(20):
            asked = await api.sent.get()
        keyboard = json.loads(asked["reply_markup"])
        who = {"id": 7, "is_bot": False, "first_name": "Ada"}
        chat = {"id": 7, "type": "private"}
        shown = {"message_id": 1, "date": 1, "chat": chat, "text": "?", "reply_markup": keyboard}
        press = {"id": "c1", "from": who, "chat_instance": "x", "message": shown}
        press["data"] = keyboard["inline_keyboard"][1][0]["callback_data"]
        told = []
        for id in (2, 3):
            api.pending.append({"update_id": id, "callback_query": {**press, "id": f"c{id}"}})
            api.arrived.set()
            async with asyncio.timeout(20):
                told += [(await api.sent.get()).get("text") for _ in range(2)]
        assert {"chosen: large", "you: large"} <= set(told)


async def test_a_message_that_waits_is_changed(sqlite_url: str) -> None:
    """An edit of what is not answered yet: the bot hears the new text, once."""
    go = asyncio.Event()

    async def slow(turn: Turn) -> str:
        if turn.text == "first":
            await go.wait()
        return f"you: {turn.text}"

    async with telegram(sqlite_url, handler=slow) as (api, runtime):
        api.say(1, "first")
        api.say(2, "helo")
        changed = api.say(3, "hello")
        changed["edited_message"] = {**changed.pop("message"), "message_id": 2, "edit_date": 2}
        async with asyncio.timeout(20):
            while "hello" not in await waiting_texts(runtime):
                await asyncio.sleep(0.01)
        go.set()
        assert await api.texts(2) == ["you: first", "you: hello"]
        api.pending.append({**changed, "update_id": 4})  # Telegram was not sure that it arrived
        api.say(5, "third")
        assert await api.texts(1) == ["you: third"]


async def waiting_texts(runtime: Runtime) -> list[str]:
    try:
        turns, _ = await runtime.gateway.turns("telegram:123456:7", status="queued")
    except NotFound:
        return []
    return [turn.message.text for turn in turns if turn.message is not None]


async def test_who_the_bot_is_comes_first(sqlite_url: str) -> None:
    """While Telegram does not say the bot's name, nothing is read: it would be lost, or taken for
    something that is meant for the bot."""
    async with telegram(sqlite_url, addressed=True, failures=2) as (api, _):
        group = {"id": -100, "type": "supergroup", "title": "All"}
        for id, text in enumerate(("hello all", "@ours_bot hello"), 1):
            put(api, id, text=text, chat=group)
        assert await api.texts(1) == ["you: @ours_bot hello"]
        assert api.sent.empty()


async def test_what_people_send_on_telegram(sqlite_url: str) -> None:
    """An album is one turn; voices, places and contacts are attachments; a changed message takes
    the place of the last one; commands have their argument."""
    async with telegram(sqlite_url) as (api, runtime):
        for id in (1, 2, 3):
            photo = [{**FILE, "width": 1, "height": 1}]
            caption = {"caption": "3 receipts"} if id == 1 else {}
            put(api, id, media_group_id="g", photo=photo, **caption)
        assert await api.texts(1) == ["you: 3 receipts ['image', 'image', 'image']"]
        put(api, 4, voice={**FILE, "duration": 1})
        put(api, 5, location={"latitude": 1.5, "longitude": 2.0})
        put(api, 6, contact={"phone_number": "1", "first_name": "A"})
        said = ["you:  ['audio']", "you:  ['location']", "you:  ['contact']"]
        assert await api.texts(3) == [text.replace("  ", "  ") for text in said]
        api.say(7, "helo")
        await api.texts(1)
        changed = api.say(7, "hello")
        changed["edited_message"] = {**changed.pop("message"), "edit_date": 2}
        changed["update_id"] = 8
        assert await api.texts(1) == ["you: hello"]
        api.say(9, "/start from_a_friend")
        await api.texts(1)
        messages = [m for m in await runtime.messages("telegram:123456:7") if m.role == "user"]
        assert [m.text for m in messages][-2:] == ["hello", "/start from_a_friend"]
        about = messages[-1].metadata
        assert (about["command"], about["argument"]) == ("start", "from_a_friend")
        assert messages[2].attachments == [Attachment("location", "geo:1.5,2.0")]


async def test_groups_on_telegram(sqlite_url: str) -> None:
    """With `addressed` the bot answers only what names it, replies to it, or is its command; topics
    are sessions of their own, and the answer comes where it was asked."""
    async with telegram(sqlite_url, addressed=True) as (api, _):
        group = {"id": -100, "type": "supergroup", "title": "All"}
        topic = {"message_thread_id": 11, "is_topic_message": True}
        texts = ("hello all", "@ours_bot hello", "/help@other_bot", "/help")
        for id, text in enumerate(texts, 1):
            put(api, id, text=text, chat=group, **topic)
        async with asyncio.timeout(20):
            sent = [await api.sent.get(), await api.sent.get()]
        assert [one["text"] for one in sent] == ["you: @ours_bot hello", "you: /help"]
        assert {one["message_thread_id"] for one in sent} == {"11"}


async def test_files_and_markup_on_telegram(sqlite_url: str) -> None:
    """Markdown comes as Telegram's entities, a data URL as an upload."""

    async def fancy(turn: Turn) -> Message:
        data = "data:text/plain;base64,aGVsbG8="
        return Message(
            "**bold** and `code` 😀 [x](https://a.b)", [Attachment("file", data, "a.txt")]
        )

    async with telegram(sqlite_url, fancy) as (api, _):
        api.say(1, "go")
        async with asyncio.timeout(20):
            text, file = await api.sent.get(), await api.sent.get()
        assert text["text"] == "bold and code 😀 x"
        entities = json.loads(text["entities"])
        assert [(e["type"], e["offset"], e["length"]) for e in entities] == [
            ("bold", 0, 4), ("code", 9, 4), ("text_link", 17, 1),
        ]  # fmt: skip
        assert file["method"] == "sendDocument"


WORDS = st.text("ab *_`~[]()#>-\n😀", max_size=120)


@given(WORDS, st.integers(4, 40))
def test_splitting_markup(text: str, limit: int) -> None:
    """No piece is longer than it may be, none is blank, and together they are the whole text."""
    said = runs(text)
    pieces = split(said, limit, lambda run: units(run.text))
    for piece in pieces:
        assert sum(units(run.text) for run in piece) <= limit
        assert any(run.text.strip() for run in piece)
    joined = "".join(run.text for piece in pieces for run in piece)
    assert joined.split() == "".join(run.text for run in said).split()


@pytest.mark.parametrize("choices", [0, 2, 5, 40])
def test_pieces_fit_with_their_marks(choices: int) -> None:
    """Addresses, marks and numbered choices count: what is longer is refused as a whole."""
    link = "[the page](https://example.org/" + "x" * 60 + ")"
    text = " ".join([link, "**bold** & <b>"] * 80) + "\n\n> " + "quoted " * 400
    ask = Ask(text, choices=[f"choice {i} " + "y" * 15 for i in range(choices)] or None)
    message = ask if choices else Message(text)
    slack, whatsapp = Slack("xoxb-1", "secret"), WhatsApp("4711", "token", "secret")
    longest = 3000 if choices else 4000
    assert max(len(piece.text) for piece in slack.pieces(message)) <= longest
    longest = 1024 if 0 < choices <= 10 else 4096
    pieces = whatsapp.pieces(message)
    assert max(len(piece.text) for piece in pieces) <= longest
    assert choices != 40 or "40. choice 39" in pieces[-1].text


def test_text_without_markup_stays() -> None:
    """Numbers, signs and lists are as they were written."""
    for text in ("2 * 3 = 6", "- milk\n- bread", "a_b_c", "x < y", "1) no list"):
        assert runs(text) == [Run(text)]
    assert split([Run("A" * 10 + "B" * 5)], 10) == [[Run("A" * 10)], [Run("B" * 5)]]


@asynccontextmanager
async def slack(sqlite_url: str, api: SlackAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(api.app) as url:
        runtime = Runtime(Bot(reply), sqlite_url, settings=SETTINGS)
        app = FastAPI(lifespan=runtime.lifespan)
        app.include_router(slack_webhook(runtime, Slack("xoxb-1", api.secret, api=url)))
        async with serving(app, lifespan="on") as door, httpx.AsyncClient(base_url=door) as client:
            yield client


async def test_slack_in_threads_and_buttons(sqlite_url: str) -> None:
    """A thread goes on without another mention, but only where the bot was mentioned; others' names
    and links are readable; a button is the answer."""
    api = SlackAPI()
    async with slack(sqlite_url, api) as client:

        async def post(id: str, text: str, **event: Any) -> None:
            body = slack_event(id, text, **event)
            response = await client.post("/webhooks/slack", **api.signed(body))
            assert response.status_code == 200

        mention = {"type": "app_mention", "channel": "C1", "channel_type": None, "ts": "7.7"}
        channel = {"channel": "C1", "channel_type": "channel"}
        await post("E1", "<@UBOT> give <@U2>'s ticket, see <https://x.org|the doc>", **mention)
        assert await api.said(1) == [
            ("C1", "you: give &lt;@U2&gt;'s ticket, see the doc (https://x.org)", "7.7")
        ]
        await post("E2", "and this", ts="7.9", thread_ts="7.7", **channel)
        assert await api.said(1) == [("C1", "you: and this", "7.7")]
        await post("E3", "nobody asked", ts="8.1", thread_ts="8.0", **channel)
        await post("E4", "order", ts="7.95", thread_ts="7.7", **channel)
        async with asyncio.timeout(20):
            asked = await api.sent.get()
        buttons = asked["blocks"][-1]["elements"]
        assert [one["text"]["text"] for one in buttons] == ["small", "large"]
        press = {
            "type": "block_actions", "api_app_id": "A1", "team": {"id": "T1"},
            "user": {"id": "U1"}, "channel": {"id": "C1"},
            "message": {"ts": "1.0", "thread_ts": "7.7"},
            "actions": [{**buttons[0], "action_ts": "9.9", "block_id": "b"}],
        }  # fmt: skip
        form = urlencode({"payload": json.dumps(press)})
        signed = api.signed_text(form, "application/x-www-form-urlencoded")
        assert (await client.post("/webhooks/slack", **signed)).status_code == 200
        assert await api.said(1) == [("C1", "chosen: small", "7.7")]
        assert api.sent.empty()


async def test_slack_that_does_not_say_who_the_bot_is(sqlite_url: str) -> None:
    """The first event is not acknowledged, so that Slack sends it again."""
    api = SlackAPI()
    api.away = True
    async with slack(sqlite_url, api) as client:
        event = slack_event("E1", "hi")
        assert (await client.post("/webhooks/slack", **api.signed(event))).status_code >= 500
        api.away = False
        assert (await client.post("/webhooks/slack", **api.signed(event))).status_code == 200
        assert await api.said(1) == [("D1", "you: hi", None)]


async def test_the_widgets_door(sqlite_url: str) -> None:
    """Buttons, files, one turn for one key, and each message at once as a line."""

    async def shop(turn: Turn) -> AsyncIterator[Message]:
        if turn.text == "bill":
            yield Message("", [Attachment("application/pdf", "https://x.org/bill.pdf", "bill")])
        elif turn.answers:
            yield Message(f"chosen: {turn.answers[0].value}")
        elif turn.text == "order":
            yield Ask("Which size?", choices=["small", "large"])
        else:
            turn.state["n"] = turn.state.get("n", 0) + 1
            yield Message(f"{turn.state['n']} ordered")
            yield Message("Thank you")

    runtime = Runtime(Bot(shop), sqlite_url, settings=SETTINGS)
    app = FastAPI(lifespan=runtime.lifespan)
    app.include_router(rest_webhook(runtime))
    async with serving(app, lifespan="on") as url, httpx.AsyncClient(base_url=url) as client:

        async def say(text: str, path: str = "", **more: Any) -> httpx.Response:
            body = {"sender": "ada", "message": text, **more.pop("body", {})}
            return await client.post(f"/webhooks/rest/webhook{path}", json=body, **more)

        keys: list[Any] = [{"headers": {"Idempotency-Key": "k"}}, {"body": {"message_id": "k"}}]
        for more in keys:
            assert [one["text"] for one in (await say("pizza", **more)).json()] == [
                "1 ordered", "Thank you",
            ]  # fmt: skip
        ada = {"recipient_id": "ada"}
        assert (await say("bill")).json() == [{**ada, "attachment": "https://x.org/bill.pdf"}]
        buttons = [{"title": one, "payload": one} for one in ("small", "large")]
        assert (await say("order")).json() == [{**ada, "text": "Which size?", "buttons": buttons}]
        assert (await say("2")).json() == [{**ada, "text": "chosen: large"}]
        await say("order")
        for _ in range(2):  # once more, when the question has been answered
            repeated = await say("small", body={"message_id": "m1"})
            assert repeated.json() == [{**ada, "text": "chosen: small"}]
        lines = (await say("pizza", "?stream=true")).text.splitlines()
        assert [json.loads(line)["text"] for line in lines] == ["2 ordered", "Thank you"]
