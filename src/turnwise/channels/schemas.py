"""The shapes of HTTP bodies, as OpenAPI shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from turnwise.conversation import Attachment


class AttachmentIn(BaseModel):
    type: str = Field(min_length=1, max_length=100, examples=["image/png"])
    url: str = Field(
        min_length=1,
        max_length=2_000_000,
        pattern=r"^(https?://|data:)",
        description="An http(s) or data URL; the server never fetches it.",
    )
    name: str | None = Field(None, max_length=300)
    size: int | None = Field(None, ge=0, le=2**53, description="Bytes.")

    def plain(self) -> Attachment:
        return Attachment(self.type, self.url, self.name, self.size)


class SessionIn(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Holiday plans"}]})

    name: str | None = Field(None, max_length=200)
    metadata: dict[str, Any] | None = Field(None, description="Your own JSON, up to 16 kB.")
    ttl: float | None = Field(
        None, ge=1, le=315_360_000, description="Seconds from the last turn until it expires."
    )


class TurnIn(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "Hello!"}]})

    text: str = Field("", description="The text of the user's message.")
    role: Literal["user"] = "user"
    attachments: list[AttachmentIn] = Field(default_factory=list, max_length=20)
    metadata: dict[str, Any] = Field(default_factory=dict)


class ErrorOut(BaseModel):
    code: str = Field(examples=["timeout"])
    message: str
    retryable: bool


class MessageOut(BaseModel):
    id: str
    seq: int | None = Field(description="Position in the history; null while the turn is open.")
    turn: int
    role: Literal["user", "assistant", "system", "tool"]
    text: str
    attachments: list[AttachmentIn]
    metadata: dict[str, Any]
    created_at: str = Field(examples=["2026-01-31T12:00:00.000Z"])
    partial: bool = Field(False, description="True for the text of a cancelled reply.")
    status: Literal["completed", "failed", "cancelled"] | None = Field(
        None, description="How its turn ended; only on user messages in the history."
    )
    error: ErrorOut | None = Field(None, description="Why the turn failed.")


class ReplyOut(BaseModel):
    text: str
    messages: list[MessageOut]
    usage: dict[str, Any] | None = None


class TurnOut(BaseModel):
    session: str
    n: int
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    attempt: int
    position: int | None = Field(None, description="Unfinished turns that precede a queued one.")
    message: MessageOut | None
    reply: ReplyOut | None = None
    error: ErrorOut | None = None
    queued_at: str
    started_at: str | None
    finished_at: str | None


class SessionOut(BaseModel):
    id: str
    name: str | None
    metadata: dict[str, Any]
    created_at: str
    expires_at: str
    ttl: float
    status: Literal["idle", "queued", "running"]
    turns: int
    messages: int


class SessionCreated(SessionOut):
    token: str = Field(description="Gives access to this session only.")


class TokenOut(BaseModel):
    token: str


class MessagesOut(BaseModel):
    messages: list[MessageOut]
    has_more: bool
    open: list[TurnOut]
    cursor: str = Field(
        examples=["7-k3f9a1c2"],
        description="Follow /events `after` it: no event is missed or repeated.",
    )


class TurnsOut(BaseModel):
    turns: list[TurnOut]
    has_more: bool


class EventsOut(BaseModel):
    events: list[dict[str, Any]]
    next: str = Field(
        examples=["9-k3f9a1c2"], description="The value of `after` for the next request."
    )


class Problem(BaseModel):
    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
