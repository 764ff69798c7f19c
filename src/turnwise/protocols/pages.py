"""Chat pages with a protocol of their own: n8n's chat widget, and deep-chat.

    app.include_router(pages.router(runtime), prefix="/pages")

A page names its session; without a name each message stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from turnwise.channels.access import Authorize
from turnwise.channels.bodies import JSON
from turnwise.channels.problems import as_problem
from turnwise.conversation import TurnRecord
from turnwise.conversation.events import Event
from turnwise.conversation.streamed_text import StreamedText
from turnwise.errors import Invalid, NotFound, StreamEnded, TurnError
from turnwise.protocols.door import Caller, Door
from turnwise.protocols.fold import Fold
from turnwise.protocols.past import exchanges
from turnwise.runtime import Runtime

SESSION = "x-session-id"
"""The header with which a page of deep-chat names its session."""
KINDS = {"user": "HumanMessage", "assistant": "AIMessage"}


class N8nIn(BaseModel):
    action: str = "sendMessage"
    sessionId: str | None = Field(None, min_length=1, max_length=200)
    chatInput: str = ""


class Bubble(BaseModel):
    role: str = "user"
    text: str | None = None


class DeepChatIn(BaseModel):
    messages: list[Bubble] = Field(min_length=1, max_length=1000)
    sessionId: str | None = Field(None, min_length=1, max_length=200)
    stream: bool = False


def router(runtime: Runtime, *, authorize: Authorize | None = None) -> APIRouter:
    """Both pages' routes, for any application; `authorize` as in `turnwise.router`."""
    door = Door(runtime, authorize, as_error)
    Pages(door)
    return door.routes


def as_error(error: Exception) -> Response:
    """An error as both pages show it."""
    problem = as_problem(error)
    words = orjson.loads(problem.body)["detail"]
    return JSON(orjson.dumps({"error": words, "message": words}), problem.status_code)


class Pages:
    """Answers both pages."""

    def __init__(self, door: Door) -> None:
        self._door = door
        door.add("POST", "/n8n", self.n8n)
        door.add("POST", "/deep-chat", self.deep_chat)

    async def _say(self, caller: Caller, name: str | None, text: str, door: str) -> TurnRecord:
        if name is None:
            session_id = (await caller.create(alone=True)).id
        else:
            session_id = await caller.begin(name)
        return (await caller.submit(session_id, text, note={"door": door})).turn

    async def _answer(self, record: TurnRecord) -> tuple[str | None, str | None]:
        """The answer's text, or why there is none."""
        record = await self._door.gateway.wait(record.session, record.n, None)
        if record.open:
            raise StreamEnded()
        if record.error is not None:
            return None, record.error.message
        return (record.reply.text if record.reply is not None else ""), None

    async def n8n(self, request: Request) -> Response:
        """A message of n8n's widget, or what was said before."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, N8nIn)
        if body.action == "loadPreviousSession":
            return JSON(orjson.dumps({"data": await self._before(caller, body.sessionId)}))
        if body.action != "sendMessage":
            raise Invalid(f"The action {body.action!r} is unknown.")
        record = await self._say(caller, body.sessionId, body.chatInput, "n8n")
        text, why = await self._answer(record)
        return JSON(orjson.dumps({"output": text if why is None else why}))

    async def _before(self, caller: Caller, name: str | None) -> list[dict[str, Any]]:
        if name is None:
            return []
        try:
            session = await caller.session(name)
        except NotFound:
            return []
        found: list[tuple[str, str, str]] = []
        for exchange in await exchanges(self._door.gateway, session.id):
            found += [(said.id, "user", said.text) for said in exchange.said]
            found += [(reply.id, "assistant", reply.text) for reply in exchange.replies]
        return [
            {
                "id": ["langchain_core", "messages", KINDS[role]],
                "kwargs": {"content": text, "id": id},
            }
            for id, role, text in found
        ]

    async def deep_chat(self, request: Request) -> Response:
        """A message of deep-chat's."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, DeepChatIn)
        said = next((one.text for one in reversed(body.messages) if one.role == "user"), None)
        name = request.headers.get(SESSION) or body.sessionId
        streams = body.stream or "text/event-stream" in request.headers.get("accept", "")
        if streams:
            self._door.check_stream(request)
        record = await self._say(caller, name, said or "", "deep-chat")
        if streams:
            return self._door.stream(caller, record, DeepChatFold())
        text, why = await self._answer(record)
        return JSON(orjson.dumps({"text": text} if why is None else {"error": why}))


class DeepChatFold(Fold):
    """deep-chat's stream: pieces of text, or an error."""

    def __init__(self) -> None:
        super().__init__()
        self._told = StreamedText()

    def feed(self, event: Event) -> Iterator[bytes]:
        if self.done:
            return
        try:
            piece = self._told.hear(event)
        except (StreamEnded, TurnError) as error:
            self.begun = self.done = True
            yield self._say({"error": error.message})
            return
        if piece:
            yield self._say({"text": piece})
        yield from super().feed(event)

    def recall(self, record: TurnRecord) -> Iterator[bytes]:
        self.begun = True
        if record.reply is not None:
            yield self._say({"text": record.reply.text})

    def conclude(self, record: TurnRecord) -> Iterator[bytes]:
        self.done = True
        if record.error is not None:
            yield self._say({"error": record.error.message})

    @staticmethod
    def _say(content: dict[str, str]) -> bytes:
        return b"data: %b\n\n" % orjson.dumps(content)
