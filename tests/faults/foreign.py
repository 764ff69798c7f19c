"""People who use other people's clients: what they say, they say by OpenAI's, the AI SDK's, AG-UI's
or LangGraph's door, and now and then by our own.

Each reply is followed until its stream ends cleanly. Where the line breaks, they come back to any
server as the protocol wants it: behind the last number that they have heard, behind so many chunks,
or from the start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse
from people import Acknowledged, Gone, Person

BUSY = (429, 503)


class Request(NamedTuple):
    """What a client sends, to begin a reply or to come back to it."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = {}  # noqa: RUF012 nobody changes it


@dataclass
class Heard:
    """What somebody has heard of the reply to one message."""

    door: str
    text: str
    """The message, which is its own key and id."""
    accepted: float = 0.0
    """When a server promised to keep it, by the monotonic clock."""
    chunks: list[Any] = field(default_factory=list)
    whole: bool = False
    """The stream has ended cleanly."""
    name: str = ""
    """The name of the reply, or the address of its stream, by which one comes back."""
    again: list[Any] = field(default_factory=list)
    """The same, when all was over, from its start."""
    turn: int = 0


# The protocols: the request that begins or comes back, the name in an answer, what was said


def _openai(session: str, heard: Heard, start: bool) -> Request:
    if heard.name:
        after = "" if start or not heard.chunks else f"&starting_after={len(heard.chunks) - 1}"
        return Request("GET", f"/openai/v1/responses/{heard.name}?stream=true{after}")
    body = {"model": "any", "input": heard.text, "conversation": session, "stream": True}
    return Request("POST", "/openai/v1/responses", body, {"Idempotency-Key": heard.text})


def _ai_sdk(session: str, heard: Heard, start: bool) -> Request:
    headers = {"x-ai-sdk-version": "7"}
    if heard.name:
        index = 0 if start else len(heard.chunks)
        path = f"/ai-sdk/chat/{heard.name}/stream?startIndex={index}"
        return Request("GET", path, None, headers)
    parts = [{"type": "text", "text": heard.text}]
    body = {"id": session, "messages": [{"id": heard.text, "role": "user", "parts": parts}]}
    return Request("POST", "/ai-sdk/chat", body, headers)


def _ag_ui(session: str, heard: Heard, start: bool) -> Request:
    said = {"id": heard.text, "role": "user", "content": heard.text}
    more = {"messages": [said], "tools": [], "context": []}
    return Request("POST", "/ag-ui", {"threadId": session, "runId": heard.text, **more})


def _langgraph(session: str, heard: Heard, start: bool) -> Request:
    if heard.name:
        behind = {} if start else {"Last-Event-ID": str(len(heard.chunks) - 1)}
        return Request("GET", f"/langgraph{heard.name}", None, behind)
    said = {"type": "human", "content": heard.text, "id": heard.text}
    body = {"assistant_id": "any", "input": {"messages": [said]}, "stream_mode": MODES}
    headers = {"Idempotency-Key": heard.text}
    return Request("POST", f"/langgraph/threads/{session}/runs/stream", body, headers)


MODES = ["messages-tuple", "values"]
BEGIN: dict[str, Callable[[str, Heard, bool], Request]] = {
    "openai": _openai,
    "ai-sdk": _ai_sdk,
    "ag-ui": _ag_ui,
    "langgraph": _langgraph,
}
LAST = {
    "openai": ("response.completed", "response.failed", "response.incomplete"),
    "ai-sdk": ("[DONE]",),
    "ag-ui": ("RUN_FINISHED", "RUN_ERROR"),
    "langgraph": ("end", "error"),
}
"""The kinds of the last chunk."""


def kind_of(door: str, chunk: Any) -> str:
    """Of which kind a chunk is."""
    if door == "langgraph":
        return str(chunk["event"])
    return chunk if isinstance(chunk, str) else str(chunk["type"])


def told(door: str, chunks: list[Any]) -> str:
    """What these chunks say in the end, as their client puts them together."""
    texts: dict[str, str] = {}
    for chunk in chunks:
        kind = kind_of(door, chunk)
        if kind in ("reset-step", "MESSAGES_SNAPSHOT"):
            texts.clear()
        elif kind == "response.output_text.delta":
            texts[chunk["item_id"]] = texts.get(chunk["item_id"], "") + chunk["delta"]
        elif kind == "response.completed":
            kept = [one["id"] for one in chunk["response"]["output"]]
            texts = {id: text for id, text in texts.items() if id in kept}
        elif kind == "text-delta":
            texts[chunk["id"]] = texts.get(chunk["id"], "") + chunk["delta"]
        elif kind == "TEXT_MESSAGE_CONTENT":
            texts[chunk["messageId"]] = texts.get(chunk["messageId"], "") + chunk["delta"]
        elif kind == "messages":
            message = chunk["data"][0]
            if message["type"] == "remove":
                texts.pop(message["id"], None)
            else:
                texts[message["id"]] = texts.get(message["id"], "") + message["content"]
    return "".join(texts.values())


def chunk_of(door: str, event: ServerSentEvent) -> Any:
    """A chunk as it is compared."""
    data = event.data if event.data == "[DONE]" else event.json()
    return {"id": event.id, "event": event.event, "data": data} if door == "langgraph" else data


@dataclass
class Foreign(Person):
    """One who talks through every door."""

    heard: list[Heard] = field(default_factory=list)
    doors: list[str | None] = field(default_factory=list)
    """Those by which the next messages go; each comes as often as the others."""

    async def _say(self, client: httpx.AsyncClient, text: str) -> None:
        if not self.doors:
            self.doors = self.chance.sample([None, *BEGIN], len(BEGIN) + 1)
        door = self.doors.pop()
        if door is None:
            return await super()._say(client, text)
        heard = Heard(door, text)
        self.heard.append(heard)
        try:
            async with asyncio.timeout(60):
                while not heard.whole:
                    await self._hear_on(client, heard)
        except TimeoutError:
            self.broken.append(f"a stream has not ended: {heard}")
        self.acknowledged.append(Acknowledged(text, 0, heard.accepted))

    async def _hear_on(self, client: httpx.AsyncClient, heard: Heard) -> None:
        """Once more from where it broke, at any server; now and then the line is cut."""
        # By the client's own limit: cancelling it would leave sockets open here.
        patience = httpx.Timeout(8.0, read=0.05 if self.chance.random() < 0.3 else 8.0)
        if heard.door == "ag-ui":
            heard.chunks.clear()  # each line tells all of it
        try:
            async for chunk in self._chunks(client, heard, timeout=patience):
                heard.chunks.append(chunk)
        except (httpx.TransportError, SSEError):
            return await asyncio.sleep(0.05)
        if heard.chunks and kind_of(heard.door, heard.chunks[-1]) in LAST[heard.door]:
            heard.whole = True
        elif heard.chunks and heard.accepted:
            self.broken.append(f"a clean end in mid-answer: {heard}")
            heard.whole = True

    async def _chunks(
        self, client: httpx.AsyncClient, heard: Heard, start: bool = False, **more: Any
    ) -> AsyncIterator[Any]:
        """The chunks of a reply; none from a server that is busy."""
        session = self.path.rpartition("/")[2]
        method, path, body, headers = BEGIN[heard.door](session, heard, start)
        url = self.chance.choice(self.urls) + path
        given = {**self.auth, **headers}
        async with aconnect_sse(client, method, url, json=body, headers=given, **more) as source:
            response = source.response
            if response.status_code == 404:
                raise Gone
            if response.status_code >= 400:
                if response.status_code not in BUSY:
                    self.broken.append(f"{method} {path} is answered by {response.status_code}")
                raise httpx.ReadError("busy")
            heard.accepted = heard.accepted or time.monotonic()
            heard.name = heard.name or response.headers.get("x-workflow-run-id", "")
            if heard.door == "langgraph":
                heard.name = heard.name or response.headers["location"]
            async for event in source.aiter_sse():
                if event.data:
                    chunk = chunk_of(heard.door, event)
                    if heard.door == "openai" and not heard.name:
                        heard.name = chunk["response"]["id"]
                    yield chunk

    async def _hear_the_end(self, client: httpx.AsyncClient) -> None:
        """Also each reply once more, from its start, and which turn it was."""
        await super()._hear_the_end(client)
        queued = [one for one in await self.log(client) if one["type"] == "turn.queued"]
        turns = {one["message"]["text"]: one for one in queued if one["message"]}
        for heard in self.heard:
            if heard.text in turns:
                event = turns[heard.text]
                heard.turn = event["turn"]
                at = next(i for i, one in enumerate(self.acknowledged) if one.key == heard.text)
                ack = Acknowledged(event["key"], event["turn"], heard.accepted)
                self.acknowledged[at] = ack
            await self._hear_again(client, heard)

    async def _hear_again(self, client: httpx.AsyncClient, heard: Heard) -> None:
        for _ in range(40):
            try:
                heard.again = [one async for one in self._chunks(client, heard, start=True)]
                return
            except (httpx.TransportError, SSEError):
                await asyncio.sleep(0.1)
        self.broken.append(f"a reply cannot be heard again: {heard}")
