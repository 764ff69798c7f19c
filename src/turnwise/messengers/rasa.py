"""REST: the webhook of Rasa's REST channel, which many chat widgets use.

    POST /webhooks/rest/webhook {"sender": "ada", "message": "Hi"}
    -> [{"recipient_id": "ada", "text": "Hello"}]

Anyone who knows a sender's name can write as that sender: trust the widget, or use `authorize`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from turnwise.channels.access import Access, Authorize
from turnwise.channels.problems import ProblemRoute
from turnwise.conversation import Message
from turnwise.errors import ReplyTimeout, StreamEnded
from turnwise.messengers.courier import HasGateway

PATIENCE = 120.0
"""Seconds that a request waits for its reply."""


class SaidIn(BaseModel):
    """A message from a widget."""

    sender: str = Field("default", min_length=1, max_length=180, examples=["ada"])
    message: str = Field(min_length=1, examples=["Hi"])
    metadata: dict[str, Any] = {}


class ReplyOut(BaseModel):
    """One message of the reply: a text or an image."""

    recipient_id: str
    text: str | None = None
    image: str | None = None


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

    @routes.post("/webhook", response_model_exclude_none=True)
    async def webhook(said: SaidIn, request: Request) -> list[ReplyOut]:
        """The replies to one message; a sender's messages are answered in order."""
        session_id = session(said.sender)
        await access.to_session(request, session_id)
        gateway = runtime.gateway
        metadata = {"channel": "rest", **said.metadata}
        submitted, reader = await gateway.submit_and_follow(
            session_id, said.message, metadata=metadata, create=True
        )
        with reader:
            record = await gateway.drain(reader, submitted.turn, PATIENCE)
        if record.open:  # the turn continues, and an empty list would mean that there is no reply
            raise StreamEnded() if reader.closed else ReplyTimeout()
        if record.error is not None:
            return [ReplyOut(recipient_id=said.sender, text=record.error.message)]
        replies = record.reply.messages if record.reply else []
        return [out for reply in replies for out in _out(said.sender, reply)]

    return routes


def _out(sender: str, message: Message) -> list[ReplyOut]:
    found = [ReplyOut(recipient_id=sender, text=message.text)] if message.text else []
    return found + [
        ReplyOut(recipient_id=sender, image=one.url)
        for one in message.attachments
        if one.type.startswith("image")
    ]
