"""REST: the webhook of Rasa's REST channel, which many chat widgets use.

    POST /webhooks/rest/webhook {"sender": "ada", "message": "Hi"}
    -> [{"recipient_id": "ada", "text": "Hello"}]

With `?stream=true` each message is a line of JSON, sent when it is said. The same
`Idempotency-Key`, or `message_id`, is one turn, however often it comes. Anyone who knows a sender's
name can write as that sender: trust the widget, or use `authorize`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from turnwise.channels.access import Access, Authorize
from turnwise.channels.problems import ProblemRoute
from turnwise.conversation import Message
from turnwise.errors import ReplyTimeout, StreamEnded
from turnwise.gateway.gateway import Gateway
from turnwise.gateway.reader import Reader
from turnwise.messengers.answering import answers_in
from turnwise.messengers.heard import Heard
from turnwise.messengers.platform import HasGateway

PATIENCE = 120.0
"""Seconds that a request waits for its reply."""


class SaidIn(BaseModel):
    """A message from a widget."""

    sender: str = Field("default", min_length=1, max_length=180, examples=["ada"])
    message: str = Field(min_length=1, examples=["Hi"])
    metadata: dict[str, Any] | None = None
    message_id: str | None = Field(None, min_length=1, max_length=200)


class ButtonOut(BaseModel):
    """A choice, and the message that chooses it."""

    title: str
    payload: str


class ReplyOut(BaseModel):
    """One message of the reply: a text, perhaps with buttons, an image, or another attachment."""

    recipient_id: str
    text: str | None = None
    image: str | None = None
    attachment: str | None = None
    buttons: list[ButtonOut] | None = None


Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
Stream = Annotated[bool, Query(description="Each message as a line of JSON, when it is said.")]


def rest_webhook(
    runtime: HasGateway,
    *,
    session: Callable[[str], str] = "rest:{}".format,
    authorize: Authorize | None = None,
) -> APIRouter:
    """Routes for a FastAPI application: `app.include_router(rest_webhook(runtime))`.

    `session(sender)` is the session of a sender's conversation; `authorize(connection,
    session_id)` returns whether this request may use that session.
    """
    routes = APIRouter(route_class=ProblemRoute, prefix="/webhooks/rest", tags=["messengers"])
    access = Access(lambda: runtime.gateway, runtime.settings, authorize or (lambda *_: True))

    @routes.get("/")
    async def health() -> dict[str, str]:
        """Report that the channel is available."""
        return {"status": "ok"}

    @routes.post("/webhook", response_model=list[ReplyOut], response_model_exclude_none=True)
    async def webhook(
        said: SaidIn, request: Request, key: Key = None, stream: Stream = False
    ) -> Any:
        """The replies to one message; a sender's messages are answered in order."""
        session_id = session(said.sender)
        await access.to_session(request, session_id)
        gateway = runtime.gateway
        named = key or said.message_id
        name = None if named is None else f"rest:{named}"
        answers = await answers_in(gateway, session_id, said.message, key=name)
        submitted, reader = await gateway.submit_and_follow(
            session_id,
            said.message,
            key=name,
            metadata={"channel": "rest", **(said.metadata or {})},
            answers=answers,
            create=True,
        )
        turn = submitted.turn
        if stream:
            lines = _lines(gateway, reader, said.sender, turn.n)
            return StreamingResponse(lines, media_type="application/x-ndjson")
        with reader:
            record = await gateway.drain(reader, turn, PATIENCE)
        if record.open:  # the turn continues, and an empty list would mean that there is no reply
            raise StreamEnded() if reader.closed else ReplyTimeout()
        if record.error is not None:
            return [ReplyOut(recipient_id=said.sender, text=record.error.message)]
        replies = record.reply.messages if record.reply else []
        return [out for reply in replies for out in _out(said.sender, reply)]

    return routes


async def _lines(gateway: Gateway, reader: Reader, sender: str, n: int) -> AsyncIterator[bytes]:
    """Each message of a turn as a line; a connection that ends without the last line, which is
    empty of text, has lost some."""
    with reader:
        told, heard = 0, Heard(0)
        while not (reader.ended or reader.closed):
            for event in await reader.read():
                heard.hear(event)
            # What is asked is known at the end, and then the record says all.
            while not reader.ended and (said := heard.after(told)) is not None:
                if not said.complete or said.asks:
                    break
                told += 1
                for out in _out(sender, said.message):
                    yield _line(out)
        if reader.closed:
            return
    record = await gateway.turn(reader.session, n)
    if record.error is not None:
        yield _line(ReplyOut(recipient_id=sender, text=record.error.message))
    for reply in (record.reply.messages if record.reply else [])[told:]:
        for out in _out(sender, reply):
            yield _line(out)


def _line(out: ReplyOut) -> bytes:
    return orjson.dumps(out.model_dump(exclude_none=True)) + b"\n"


def _out(sender: str, message: Message) -> list[ReplyOut]:
    found = []
    if message.text or message.ask is not None:
        out = ReplyOut(recipient_id=sender, text=message.text)
        if message.ask is not None and message.ask.choices:
            out.buttons = [ButtonOut(title=one, payload=one) for one in message.ask.choices]
        found.append(out)
    for one in message.attachments:
        image = one.type.startswith("image")
        more = {"image": one.url} if image else {"attachment": one.url}
        found.append(ReplyOut(recipient_id=sender, **more))
    return found
