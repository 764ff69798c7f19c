"""Messengers that fail: servers of their APIs, and people who write there.

A server refuses for a while or for good, asks for patience, is slow, and loses answers; it keeps
each chat as the person sees it. People's updates are sent to whichever process takes them, again
and again until they are acknowledged, and some once more.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

PACE = 0.25
"""Seconds between two messages of a person."""
BLOCKED = "9"
"""What the address of a chat ends with that has blocked the bot."""


@dataclass
class Shown:
    """A message that a person sees: its text, when it came, and whether the bot was told so."""

    text: str
    at: float
    told: bool


@dataclass
class Chat:
    """A chat as the person sees it: its messages by their ids, in order."""

    shown: dict[str, Shown] = field(default_factory=dict)


class Messengers:
    """The three APIs in one application. `away` answers nothing."""

    def __init__(self, seed: int) -> None:
        self.chats: dict[str, Chat] = {}
        self.away = False
        self._chance = random.Random(seed)
        self._count = 0
        self.app = FastAPI()
        for path, call in (
            ("/telegram/bot{token}/{method}", self._telegram),
            ("/slack/{method}", self._slack),
            ("/whatsapp/{phone}/messages", self._whatsapp),
        ):
            self.app.add_api_route(path, call, methods=["POST"])

    async def _telegram(self, token: str, method: str, request: Request) -> Response:
        async with request.form() as given:
            form = {name: str(value) for name, value in given.items()}
        if method not in ("sendMessage", "editMessageText"):
            return JSONResponse({"ok": True, "result": True})

        def wrong(status: int, **more: Any) -> Response:
            body = {"ok": False, "error_code": status, "description": "no", "parameters": more}
            return JSONResponse(body, status)

        def done(id: str) -> Response:
            chat = {"id": int(form["chat_id"]), "type": "private"}
            return JSONResponse(
                {"ok": True, "result": {"message_id": int(id), "date": 1, "chat": chat}}
            )

        where = f"telegram {form['chat_id']}"
        said = form["text"], form.get("message_id")
        return await self._said(request, where, *said, wrong, done)

    async def _slack(self, method: str, request: Request) -> Response:
        if method == "auth.test":
            return JSONResponse({"ok": True, "team_id": "T", "bot_id": "B", "user_id": "U"})
        body = await request.json()

        def wrong(status: int, retry_after: float = 0) -> Response:
            name = {403: "is_archived", 429: "ratelimited"}.get(status, "internal_error")
            headers = {"Retry-After": str(int(retry_after))}
            return JSONResponse({"ok": False, "error": name}, status, headers)

        def done(id: str) -> Response:
            return JSONResponse({"ok": True, "channel": body["channel"], "ts": id})

        said = f"slack {body['channel']}", body["text"], body.get("ts")
        return await self._said(request, *said, wrong, done)

    async def _whatsapp(self, phone: str, request: Request) -> Response:
        body = await request.json()

        def wrong(status: int, **more: Any) -> Response:
            code = {403: 131030, 429: 130429}.get(status, 131000)
            error = {"message": "no", "type": "OAuthException", "code": code}
            return JSONResponse({"error": error}, 400)

        def done(id: str) -> Response:
            who = {"input": body["to"], "wa_id": body["to"]}
            found = {"contacts": [who], "messages": [{"id": id}], "messaging_product": "whatsapp"}
            return JSONResponse(found)

        said = f"whatsapp {body['to']}", body["text"]["body"], None
        return await self._said(request, *said, wrong, done)

    async def _said(
        self,
        request: Request,
        where: str,
        text: str,
        id: str | None,
        wrong: Callable[..., Response],
        done: Callable[[str], Response],
    ) -> Response:
        """Show a text in a chat, or change the message `id`; or fail."""
        chat, chance = self.chats.setdefault(where, Chat()), self._chance.random()
        while self.away:
            await asyncio.sleep(0.1)
        if where.endswith(BLOCKED):
            return wrong(403)
        if chance < 0.08:
            return wrong(502)
        if chance < 0.12:
            return wrong(429, retry_after=1)
        if chance < 0.25:
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))
        told = chance < 0.96 and not await request.is_disconnected()
        if id is None:
            self._count += 1
            id = str(self._count)
            chat.shown[id] = Shown(text, time.monotonic(), told)
        chat.shown[id].text = text
        return done(id) if told else wrong(500)


@dataclass
class Writer:
    """One who writes in a chat of a messenger; `urls` are the bot's processes."""

    platform: str
    chat: str
    urls: Sequence[str]
    chance: random.Random
    accepted: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"{self.platform} {self.chat}"

    async def write(self, enough: asyncio.Event) -> None:
        """Write until it is enough."""
        async with httpx.AsyncClient(timeout=8.0) as client:
            i = 0
            while not enough.is_set():
                for _ in range(1 + (self.chance.random() < 0.2)):
                    await self._post(client, i)
                self.accepted.append(f"m{i}")
                i += 1
                await asyncio.sleep(PACE * 2 * self.chance.random())

    async def _post(self, client: httpx.AsyncClient, i: int) -> None:
        """Until a process has acknowledged it."""
        make: Callable[[int], tuple[bytes, dict[str, str]]] = getattr(self, f"_{self.platform}")
        content, headers = make(i)
        while True:
            url = f"{self.chance.choice(self.urls)}/webhooks/{self.platform}"
            try:
                answer = await client.post(url, content=content, headers=headers)
                if answer.status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)

    def _telegram(self, i: int) -> tuple[bytes, dict[str, str]]:
        id = int(self.chat)
        message = {
            "message_id": i + 1, "date": 1, "chat": {"id": id, "type": "private"},
            "from": {"id": id, "is_bot": False, "first_name": "A"}, "text": f"m{i}",
        }  # fmt: skip
        body = {"update_id": id * 100_000 + i, "message": message}
        return json.dumps(body).encode(), {"X-Telegram-Bot-Api-Secret-Token": "secret"}

    def _slack(self, i: int) -> tuple[bytes, dict[str, str]]:
        event = {
            "type": "message", "channel": self.chat, "channel_type": "im", "user": "U1",
            "ts": f"{i}.1", "text": f"m{i}",
        }  # fmt: skip
        body = {
            "type": "event_callback", "token": "t", "team_id": "T", "api_app_id": "A",
            "event_id": f"{self.chat} {i}", "event": event, "event_time": 1,
        }  # fmt: skip
        content, stamp = json.dumps(body).encode(), str(int(time.time()))
        signed = hmac.new(b"secret", f"v0:{stamp}:".encode() + content, "sha256").hexdigest()
        headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={signed}"}
        return content, {"Content-Type": "application/json", **headers}

    def _whatsapp(self, i: int) -> tuple[bytes, dict[str, str]]:
        message = {"from": self.chat, "id": f"{self.chat}.{i}", "type": "text", "timestamp": "1"}
        value = {
            "metadata": {"phone_number_id": "47"},
            "messages": [{**message, "text": {"body": f"m{i}"}}],
        }
        content = json.dumps({"entry": [{"changes": [{"value": value}]}]}).encode()
        signed = hmac.new(b"secret", content, "sha256").hexdigest()
        return content, {"X-Hub-Signature-256": f"sha256={signed}"}
