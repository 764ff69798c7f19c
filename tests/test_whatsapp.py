"""WhatsApp's Cloud API: messages in, replies out, at a Graph API server of our own."""

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
from fastapi.responses import JSONResponse, Response

from conftest import serving
from test_messenger_doors import SETTINGS
from turnwise import Ask, Bot, Message, Runtime, Turn
from turnwise.conversation import Attachment
from turnwise.errors import ConfigurationError
from turnwise.messengers.whatsapp import WhatsApp, whatsapp_webhook

SECRET = "the-app-secret"


class GraphAPI:
    """The part of Meta's Graph API that a number needs."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.errors: list[int] = []
        self.app = FastAPI()
        self.app.add_api_route("/v1/{phone}/messages", self.messages, methods=["POST"])
        self.app.add_api_route("/v1/{phone}/media", self.media, methods=["POST"])

    async def messages(self, phone: str, request: Request) -> Response:
        body = await request.json()
        if self.errors:
            code = self.errors.pop(0)
            error = {"message": "no", "type": "OAuthException", "code": code, "fbtrace_id": "x"}
            return JSONResponse({"error": error}, 400)
        await self.sent.put(body)
        to = body.get("to") or body["recipient"]
        who = {"input": to, "wa_id": to}
        found = {
            "messaging_product": "whatsapp",
            "contacts": [who],
            "messages": [{"id": "wamid.o"}],
        }
        return JSONResponse(found)

    async def media(self, phone: str, request: Request) -> Response:
        async with request.form() as form:
            await self.sent.put({"media": str(form.get("type"))})
        return JSONResponse({"id": "777"})

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            return await self.sent.get()


async def reply(turn: Turn) -> Message:
    if turn.answers:
        return Message(f"chosen: {turn.answers[0].value}")
    if turn.text == "order":
        return Ask("Which size?", choices=["small", "large"])
    if turn.text == "menu":
        return Ask("Which?", choices=[f"number {i}" for i in range(5)])
    if turn.text == "bill":
        return Message("**Yours**", [Attachment("text/plain", "data:text/plain;base64,aGk=", "b")])
    kinds = [one.type for one in turn.message.attachments] if turn.message else []
    return Message(f"you: {turn.text} {kinds if kinds else ''}".strip())


def call(*messages: dict[str, Any], phone: str = "4711") -> dict[str, Any]:
    """What Meta calls the webhook with."""
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "1", "phone_number_id": phone},
        "contacts": [{"profile": {"name": "Ada"}, "wa_id": "49"}],
        "messages": list(messages),
    }
    return {"object": "whatsapp_business_account", "entry": [{"changes": [{"value": value}]}]}


def message(id: str, kind: str, content: Any) -> dict[str, Any]:
    return {"from": "49", "id": f"wamid.{id}", "timestamp": "1", "type": kind, kind: content}


def text(id: str, body: str) -> dict[str, Any]:
    return message(id, "text", {"body": body})


Post = Any


@asynccontextmanager
async def number(
    sqlite_url: str, handler: Any = reply
) -> AsyncIterator[tuple[GraphAPI, Post, httpx.AsyncClient]]:
    """A number at a Graph API server of our own."""
    api = GraphAPI()
    async with serving(api.app) as url:
        runtime = Runtime(Bot(handler), sqlite_url, settings=SETTINGS)
        app = FastAPI(lifespan=runtime.lifespan)
        whatsapp = WhatsApp("4711", "token", SECRET, api=f"{url}/v1")
        app.include_router(whatsapp_webhook(runtime, whatsapp, "verify-me"))
        async with serving(app, lifespan="on") as door, httpx.AsyncClient(base_url=door) as client:

            async def post(body: Any, secret: str = SECRET) -> int:
                content = json.dumps(body).encode()
                signature = "sha256=" + hmac.new(secret.encode(), content, "sha256").hexdigest()
                headers = {"X-Hub-Signature-256": signature}
                answer = await client.post("/webhooks/whatsapp", content=content, headers=headers)
                return answer.status_code

            yield api, post, client


async def test_messages_in_and_out(sqlite_url: str) -> None:
    """Signed calls are taken, each message once, those of other numbers and unreadable ones are
    passed over; the address is verified."""
    async with number(sqlite_url) as (api, post, client):
        check = {"hub.mode": "subscribe", "hub.challenge": "abc"}
        for token, status in (("verify-me", 200), ("wrong", 403)):
            asked = {**check, "hub.verify_token": token}
            answer = await client.get("/webhooks/whatsapp", params=asked)
            assert answer.status_code == status
        assert await post(call(text("1", "hi")), "forged") == 401
        odd = {"from": "49", "id": "wamid.odd", "type": "text", "text": None}
        both = call(odd, text("1", "hi"), text("1", "hi"), text("2", "again"))
        assert await post(both) == 200
        assert await post(call(text("3", "elsewhere"), phone="1")) == 200
        assert await post(both) == 200
        said = [await api.next(), await api.next()]
        assert [(one["to"], one["text"]["body"]) for one in said] == [
            ("49", "you: hi"), ("49", "you: again"),
        ]  # fmt: skip
        assert api.sent.empty()
        assert await post([]) == 422


async def test_what_people_send_and_press(sqlite_url: str) -> None:
    """Pictures, voices and places are attachments; choices are buttons, or a list where there are
    more; a pressed one is the answer."""
    async with number(sqlite_url) as (api, post, _):
        photo = message("1", "image", {"id": "9", "mime_type": "image/jpeg", "caption": "see"})
        place = message("2", "location", {"latitude": 1, "longitude": 2})
        await post(call(photo, place))
        bodies = [(await api.next())["text"]["body"] for _ in range(2)]
        assert bodies == ["you: see ['image']", "you:  ['location']"]
        await post(call(text("3", "order")))
        asked = (await api.next())["interactive"]
        assert [one["reply"]["title"] for one in asked["action"]["buttons"]] == ["small", "large"]
        chosen = asked["action"]["buttons"][1]["reply"]
        pressed = {"type": "button_reply", "button_reply": chosen}
        await post(call(message("4", "interactive", pressed)))
        assert (await api.next())["text"]["body"] == "chosen: large"
        await post(call(text("5", "menu")))
        listed = (await api.next())["interactive"]
        assert len(listed["action"]["sections"][0]["rows"]) == 5


async def test_files_and_errors(sqlite_url: str) -> None:
    """Bytes are uploaded; a limit is waited for, and what is lasting is left at once."""
    async with number(sqlite_url) as (api, post, _):
        await post(call(text("1", "bill")))
        assert (await api.next())["text"]["body"] == "*Yours*"
        assert (await api.next())["media"] == "text/plain"
        assert (await api.next())["document"]["id"] == "777"
        api.errors = [130429]
        await post(call(text("2", "a")))
        assert (await api.next())["text"]["body"] == "you: a"
        api.errors = [131047]  # the person has not written for a day
        await post(call(text("3", "b"), text("4", "c")))
        assert (await api.next())["text"]["body"] == "you: c"


def test_what_it_needs() -> None:
    """Told in words."""
    with pytest.raises(ConfigurationError, match="secret"):
        WhatsApp("1", "t", "")
