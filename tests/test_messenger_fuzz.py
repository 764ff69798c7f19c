"""Messengers' webhooks are given what nobody should send: what cannot be read is passed over and
acknowledged, or the platform would send it for ever; the next message is answered."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from conftest import serving
from mutations import fuzz, mutated
from test_messengers import BotAPI, SlackAPI, slack_event
from test_whatsapp import SECRET, GraphAPI, call, message, text
from turnwise import Ask, Bot, Message, Runtime, Turn
from turnwise.messengers.rasa import rest_webhook
from turnwise.messengers.slack import Slack, slack_webhook
from turnwise.messengers.telegram import Telegram, telegram_webhook
from turnwise.messengers.whatsapp import WhatsApp, whatsapp_webhook
from turnwise.settings import Settings

ADA = {"id": 7, "is_bot": False, "first_name": "Ada", "username": "ada", "language_code": "en"}
CHAT = {"id": 7, "type": "private"}
FILE = {"file_id": "f", "file_unique_id": "u", "file_size": 2}
BARE: dict[str, Any] = {"message_id": 1, "date": 1, "chat": CHAT, "from": ADA}
PRESSED = {"id": "c", "from": ADA, "chat_instance": "x", "data": "ask|1", "message": BARE}
PICTURE = {**BARE, "caption": "look", "photo": [{**FILE, "width": 1, "height": 1}]}
PLACE = {**BARE, "location": {"latitude": 1.5, "longitude": 2.0}, "message_thread_id": 4}
SLACK_FILE = {"mimetype": "image/png", "url_private": "https://x.org/a", "name": "a", "size": 1}
SLACK_PRESS = {
    "type": "block_actions", "api_app_id": "A1", "team": {"id": "T1"}, "user": {"id": "U1"},
    "channel": {"id": "C1"}, "message": {"ts": "1.0", "thread_ts": "7.7"},
    "actions": [{"action_id": "turnwise:ask|1", "action_ts": "9.9", "block_id": "b",
                 "type": "button", "text": {"type": "plain_text", "text": "small"}}],
}  # fmt: skip
CHOSEN = {"type": "button_reply", "button_reply": {"id": "ask|1", "title": "small"}}
PERSON = [{"name": {"formatted_name": "Bo"}, "phones": [{"phone": "1"}]}]
BODIES: dict[str, list[Any]] = {
    "telegram": [
        {"update_id": 1, "message": {**BARE, "text": "hi", "reply_to_message": BARE}},
        {"update_id": 2, "edited_message": {**BARE, "text": "ho", "edit_date": 2}},
        {"update_id": 3, "callback_query": PRESSED},
        {"update_id": 4, "message": PICTURE},
        {"update_id": 5, "message": PLACE},
    ],
    "slack": [
        slack_event("E1", "hi <@U2> <https://x.org|doc>", files=[SLACK_FILE]),
        slack_event("E2", "hi", type="app_mention", channel="C1", channel_type=None),
        {**slack_event("E3", "hi", thread_ts="4.0"), "authorizations": [{"team_id": "T1"}]},
        SLACK_PRESS,
    ],
    "whatsapp": [
        call({**text("1", "hi"), "context": {"id": "wamid.0"}}),
        call(message("2", "image", {"id": "1", "caption": "look"}), text("3", "hi")),
        call(message("4", "interactive", CHOSEN)),
        call(message("5", "contacts", PERSON), message("6", "location", {"latitude": 1})),
    ],
    "rest": [{"sender": "ada", "message": "hi", "metadata": {"a": 1}, "message_id": "m"}],
}


async def reply(turn: Turn) -> Message:
    return Ask("Which size?", choices=["small", "large"]) if turn.text == "order" else Message("ok")


Post = Callable[..., Any]


@asynccontextmanager
async def doors(store: str) -> Any:
    """All webhooks of one application; yields what sends a body to each as its platform does."""
    telegram, meta, slack_api = BotAPI(), GraphAPI(), SlackAPI()
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(one.app)) for one in (telegram, meta)]
        slack_url = await stack.enter_async_context(serving(slack_api.app))
        runtime = Runtime(Bot(reply), store, settings=Settings(_env_file=None, grace=1.0))
        app = FastAPI(lifespan=runtime.lifespan)
        bot = Telegram(telegram.token, api=urls[0])
        app.include_router(telegram_webhook(runtime, bot, "s3cret"))
        number = WhatsApp("4711", "token", SECRET, api=f"{urls[1]}/v1")
        app.include_router(whatsapp_webhook(runtime, number, "verify-me"))
        slack = Slack("xoxb-1", slack_api.secret, api=slack_url)
        app.include_router(slack_webhook(runtime, slack))
        app.include_router(rest_webhook(runtime))
        base = await stack.enter_async_context(serving(app, lifespan="on"))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=base, timeout=30))

        async def to_telegram(body: Any) -> httpx.Response:
            headers = {"X-Telegram-Bot-Api-Secret-Token": "s3cret"}
            content = json.dumps(body)
            return await client.post("/webhooks/telegram", content=content, headers=headers)

        async def to_slack(body: Any) -> httpx.Response:
            return await client.post("/webhooks/slack", **slack_api.signed(body))

        async def to_whatsapp(body: Any) -> httpx.Response:
            content = json.dumps(body).encode()
            signature = "sha256=" + hmac.new(SECRET.encode(), content, "sha256").hexdigest()
            headers = {"X-Hub-Signature-256": signature}
            return await client.post("/webhooks/whatsapp", content=content, headers=headers)

        async def to_rest(body: Any) -> httpx.Response:
            headers = {"Content-Type": "application/json"}
            url = "/webhooks/rest/webhook"
            return await client.post(url, content=json.dumps(body), headers=headers)

        async def to_any(path: str, content: str | bytes) -> httpx.Response:
            return await client.post(f"/webhooks/{path}", content=content)

        yield {
            "telegram": to_telegram, "slack": to_slack, "whatsapp": to_whatsapp, "rest": to_rest,
            "anybody": to_any,
        }, runtime  # fmt: skip


@contextmanager
def opened(store: str) -> Iterator[tuple[asyncio.Runner, dict[str, Post], Runtime]]:
    """The doors in a loop that runs while something is sent."""
    with asyncio.Runner() as runner:
        context = doors(store)
        posts, runtime = runner.run(context.__aenter__())
        try:
            yield runner, posts, runtime
        finally:
            runner.run(context.__aexit__(None, None, None))


def with_own_id(body: Any) -> Any:
    """The update with an id that none had before, where its id has not been changed."""
    return json.loads(ID.sub(lambda found: f"{found[1]}{next(NUMBERS)}", json.dumps(body)))


ID = re.compile(
    r'("update_id": |"event_id": "E|"id": "wamid\.|"action_ts": "|"message_id": "m)\d+(?=[,}"])'
)
NUMBERS = itertools.count(100)
REFUSED = {"telegram": {422}, "slack": {404, 422}, "whatsapp": {422}, "rest": {422}}
"""The statuses that refuse a body which is not an update."""


@pytest.mark.parametrize("path", ["telegram", "slack", "whatsapp"])
def test_what_nobody_signed(sqlite_url: str, path: str) -> None:
    """It is refused as such, whatever it is: nothing of it is read."""
    with opened(sqlite_url) as (runner, posts, _):
        for body in (
            "",
            "null",
            "[]",
            '"x"',
            "{}",
            '{"event": "x"}',
            "payload=%5B%5D",
            b"\xff\xfe",
        ):
            answer = runner.run(posts["anybody"](path, body))
            assert answer.status_code == 401, (path, body)


@pytest.mark.parametrize("name", BODIES)
def test_updates(sqlite_url: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Updates that are nearly right are acknowledged, whatever they contain."""
    with opened(sqlite_url) as (runner, posts, runtime):
        for body in BODIES[name]:
            assert runner.run(posts[name](body)).status_code == 200, body

            def send(body: Any) -> None:
                answer = runner.run(posts[name](with_own_id(body)))
                assert answer.status_code in {200, *REFUSED[name]}, (json.dumps(body), answer.text)

            fuzz(mutated(body), send)
            assert runner.run(posts[name](body)).status_code == 200
        turn = runner.run(runtime.ask("telegram:123456:7", "still there", timeout=20))
        assert turn.text == "ok"
    assert not [one for one in caplog.records if one.exc_info], caplog.text
