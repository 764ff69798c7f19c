"""People who talk to servers that fail: each says one thing after another, and hears the replies.

A person posts to whichever server answers, again and again with the same key, until the message
is acknowledged; now and then they post it once more. Beside that they follow their session, now
by server-sent events, now by WebSocket, now by long polls, each time at another server, always
from where they were.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
from httpx_sse import SSEError, aconnect_sse
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

PACE = 0.08
"""Seconds between two messages of a person."""


class Acknowledged(NamedTuple):
    """A message that a server has promised to keep: its key, its turn, and when that was.

    The key of a message is its text, if it has one of its own."""

    key: str
    n: int
    at: float


class Gone(Exception):
    """This session does not exist."""


@dataclass
class Person:
    """One who talks in a session of their own. `urls` are the servers; `orders` are what some of
    the messages tell the bot to do."""

    name: str
    urls: Sequence[str]
    orders: list[str]
    chance: random.Random
    acknowledged: list[Acknowledged] = field(default_factory=list)
    repeated: list[tuple[Acknowledged, Acknowledged]] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)
    """What was asked, and this person has not tried to answer."""
    twice: list[str] = field(default_factory=list)
    """Asks of which two answers were accepted."""
    told: bool = False
    """The session is gone, and they were told so."""
    path: str = ""
    auth: dict[str, str] = field(default_factory=dict)
    cursor: int = 0

    # Saying

    async def talk(self, enough: asyncio.Event, most: float = math.inf) -> None:
        """Say things until it is enough, at `most` so many, or until the session is gone."""
        async with httpx.AsyncClient(timeout=8.0) as client:
            await self._make(client)
            following = asyncio.create_task(self._follow())
            try:
                i = 0
                while i < most and not enough.is_set() and not self.told:
                    text = f"{self.name}.{i}"
                    if self.orders:
                        text += f" !{self.orders.pop()}"
                    await self._say(client, text)
                    await self._answer(client, f"{text}.answer")
                    await asyncio.sleep(PACE * self.chance.random() * 2)
                    i += 1
                await self._hear_the_end(client)
            except Gone:
                self.told = True
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def _make(self, client: httpx.AsyncClient) -> None:
        made = await self._insist(client, "POST", "/sessions", json={})
        self.path = f"/sessions/{made['id']}"
        self.auth = {"Authorization": f"Bearer {made['token']}"}

    async def _say(self, client: httpx.AsyncClient, text: str) -> None:
        again = self.chance.random() < 0.15
        for _ in range(1 + again):
            turn = await self._insist(
                client,
                "POST",
                f"{self.path}/turns",
                json={"text": text},
                headers={"Idempotency-Key": text},
            )
            ack = Acknowledged(text, turn["n"], time.monotonic())
            if self.acknowledged and self.acknowledged[-1].key == text:
                self.repeated.append((self.acknowledged[-1], ack))
            else:
                self.acknowledged.append(ack)

    async def _answer(self, client: httpx.AsyncClient, text: str) -> None:
        """Answer what was asked last, twice at once, at any servers: one may be accepted."""
        if not self.asks:
            return
        ask, self.asks = self.asks[-1], []
        answers = [{"ask": ask, "value": "yes"}]
        asked = (
            self._insist(
                client, "POST", f"{self.path}/turns", refused=409,
                json={"text": f"{text}{i}", "answers": answers},
                headers={"Idempotency-Key": f"{text}{i}"},
            )
            for i in range(2)
        )  # fmt: skip
        accepted = [turn for turn in await asyncio.gather(*asked) if turn is not None]
        now = time.monotonic()
        for turn in accepted:
            self.acknowledged.append(Acknowledged(turn["message"]["text"], turn["n"], now))
        if len(accepted) > 1:
            self.twice.append(ask)

    async def _insist(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        *,
        refused: int | None = None,
        **more: Any,
    ) -> Any:
        """What the first server says that does answer; None if it refuses by this status, or if
        there is nothing to say."""
        headers = {**self.auth, **more.pop("headers", {})}
        while True:
            url = self.chance.choice(self.urls) + path
            try:
                response = await client.request(method, url, headers=headers, **more)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if response.status_code == 404:
                raise Gone
            if response.status_code in (refused, 204):
                return None
            if response.status_code < 300:
                try:
                    return response.json()
                except json.JSONDecodeError as error:
                    error.add_note(error.doc[max(0, error.pos - 500) : error.pos + 200])
                    raise
            if response.status_code not in (429, 503):
                self.broken.append(f"{method} is answered by {response.status_code}")
            await asyncio.sleep(0.1)

    async def _hear_the_end(self, client: httpx.AsyncClient) -> None:
        """Until every turn has ended, and this person has heard of it."""
        what = "a turn has not ended"
        try:
            async with asyncio.timeout(60):
                while (await self._insist(client, "GET", f"{self.path}/messages"))["open"]:
                    await asyncio.sleep(0.1)
                last = max((event["id"] for event in await self.log(client)), default=0)
                what = "the reader has not heard all"
                while self.cursor < last:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.broken.append(what)

    async def log(self, client: httpx.AsyncClient) -> list[dict[str, Any]]:
        """All events of the session."""
        events: list[dict[str, Any]] = []
        while True:
            after = events[-1]["id"] if events else 0
            page = await self._insist(
                client,
                "GET",
                f"{self.path}/events?after={after}&limit=500",
                headers={"Accept": "application/json"},
            )
            if not page["events"]:
                return events
            events += page["events"]

    async def history(self, client: httpx.AsyncClient) -> list[dict[str, Any]]:
        """All messages of the session."""
        messages: list[dict[str, Any]] = []
        while True:
            after = messages[-1]["seq"] if messages else 0
            path = f"{self.path}/messages?after={after}&limit=500"
            page = await self._insist(client, "GET", path)
            messages += page["messages"]
            if not page["has_more"]:
                return messages

    # Hearing

    async def _follow(self) -> None:
        async with httpx.AsyncClient(timeout=8.0) as client:
            while not self.told:
                url = self.chance.choice(self.urls) + self.path
                door = self.chance.choice([self._by_stream, self._by_socket, self._by_polls])
                try:
                    async with asyncio.timeout(8.0):
                        await door(client, url)
                except (httpx.TransportError, SSEError, OSError, WebSocketException, TimeoutError):
                    await asyncio.sleep(0.05)

    async def _by_stream(self, client: httpx.AsyncClient, url: str) -> None:
        headers = {**self.auth, "Last-Event-ID": str(self.cursor)}
        async with aconnect_sse(client, "GET", f"{url}/events", headers=headers) as source:
            async for event in source.aiter_sse():
                if event.data and self._hear(event.json()):
                    return

    async def _by_socket(self, client: httpx.AsyncClient, url: str) -> None:
        address = f"{url.replace('http', 'ws', 1)}/ws?after={self.cursor}"
        async with connect(
            address, additional_headers=self.auth, proxy=None, open_timeout=5, close_timeout=1
        ) as socket:
            async for frame in socket:
                event = json.loads(frame)
                if "id" in event and self._hear(event):
                    return

    async def _by_polls(self, client: httpx.AsyncClient, url: str) -> None:
        headers = {**self.auth, "Accept": "application/json"}
        for _ in range(3):
            response = await client.get(f"{url}/events?after={self.cursor}&wait=2", headers=headers)
            if response.status_code == 200:
                for event in response.json()["events"]:
                    self._hear(event)

    def _hear(self, event: dict[str, Any]) -> bool:
        """Take note; returns whether to go on elsewhere."""
        self.seen.append(event)
        if event["type"] == "ask":
            self.asks.append(event["ask"]["id"])
        self.cursor = event["resume_at"] if event["type"] == "gap" else event["id"]
        return self.chance.random() < 0.03
