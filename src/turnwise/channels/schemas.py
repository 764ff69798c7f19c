"""The shapes of HTTP bodies, as OpenAPI shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from turnwise.conversation import Answer, Attachment, Message, WhenBusy, checked_policy
from turnwise.conversation.cursors import MAX_NUMBER


class AttachmentIn(BaseModel):
    type: str = Field(min_length=1, max_length=100, examples=["image/png"])
    url: str = Field(
        min_length=1,
        max_length=2_000_000,
        pattern=r"^(https?://|data:|/)",
        description="A file of the session, or an http(s) or data URL that nobody fetches.",
    )
    name: str | None = Field(None, max_length=300)
    size: int | None = Field(None, ge=0, le=2**53, description="Bytes.")

    def plain(self) -> Attachment:
        return Attachment(self.type, self.url, self.name, self.size)


class AnswerIn(BaseModel):
    ask: str = Field(min_length=1, max_length=100, description="The id of the ask.")
    value: Any = Field(description="One of its choices, a form's values, a tool's result.")

    def plain(self) -> Answer:
        return Answer(self.ask, self.value)


class Policy(BaseModel):
    when_busy: WhenBusy | None = Field(
        None, description="What a message does that finds earlier ones unanswered."
    )
    settle: float = Field(
        0.0, ge=0, le=5, description="Seconds that a turn waits for more messages to be merged."
    )

    @model_validator(mode="after")
    def _only_of_merging(self) -> Self:
        if self.settle and self.when_busy != "merge":
            raise ValueError('settle is for when_busy "merge"')
        return self


class SessionIn(Policy):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Holiday plans"}]})

    name: str | None = Field(None, max_length=200)
    metadata: dict[str, Any] | None = Field(None, description="Your own JSON, up to 16 kB.")
    private: dict[str, Any] | None = Field(
        None, description="The host's own JSON, up to 16 kB: only API keys write it."
    )
    ttl: float | None = Field(
        None, ge=1, le=315_360_000, description="Seconds from the last turn until it expires."
    )

    @property
    def policy(self) -> tuple[WhenBusy, float] | None:
        return None if self.when_busy is None else checked_policy(self.when_busy, self.settle)


class GivenMessage(BaseModel):
    role: Literal["user", "assistant", "system", "tool"]
    text: str = Field(max_length=1_000_000)
    attachments: list[AttachmentIn] = Field(default_factory=list, max_length=20)
    metadata: dict[str, Any] = Field(default_factory=dict)

    def plain(self) -> Message:
        files = [attachment.plain() for attachment in self.attachments]
        return Message(self.text, files, self.metadata, self.role)


class NewSession(SessionIn):
    messages: list[GivenMessage] = Field(
        default_factory=list,
        max_length=1000,
        description="The history at the beginning: only API keys give it.",
    )


class TurnIn(Policy):
    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "Hello!"}]})

    text: str = Field("", description="The text of the user's message.")
    role: Literal["user"] = "user"
    attachments: list[AttachmentIn] = Field(default_factory=list, max_length=20)
    metadata: dict[str, Any] = Field(default_factory=dict)
    answers: list[AnswerIn] = Field(
        default_factory=list,
        max_length=100,
        description="Answers to asks; then the text may be missing.",
    )
    replaces: int | None = Field(
        None, ge=1, le=MAX_NUMBER, description="The turn that is taken back, with all behind it."
    )

    def more(self) -> dict[str, Any]:
        """What a submission takes beside the text."""
        return {
            "attachments": [attachment.plain() for attachment in self.attachments],
            "metadata": self.metadata,
            "answers": [answer.plain() for answer in self.answers],
            "replaces": self.replaces,
            "when_busy": self.when_busy,
            "settle": self.settle,
        }


class ChangeIn(BaseModel):
    text: str = Field(description="The new text of a message that waits.")


class ForkIn(BaseModel):
    at: int | None = Field(
        None, ge=1, le=MAX_NUMBER, description="The last turn of the new session; else all."
    )
    name: str | None = Field(None, max_length=200)


class FeedbackIn(BaseModel):
    value: Literal["up", "down"]
    comment: str | None = Field(None, max_length=2000)


class WakeIn(BaseModel):
    reason: str = Field(min_length=1, max_length=4000, description="Why the bot speaks.")
    at: datetime | None = Field(None, description="When; at once if it is missing.")


class OwnerIn(BaseModel):
    owner: str = Field(min_length=1, max_length=200)


class ErrorOut(BaseModel):
    code: str = Field(examples=["timeout"])
    message: str
    retryable: bool


class AskOut(BaseModel):
    id: str
    kind: Literal["question", "form", "tool"]
    choices: list[str] | None = None
    name: str | None = None
    data: Any = None


class StepOut(BaseModel):
    id: str
    kind: Literal["tool", "reasoning", "work"]
    name: str
    status: Literal["running", "completed", "failed"]
    input: Any = None
    output: Any = None
    text: str | None = None
    error: dict[str, Any] | None = None
    truncated: bool = False


class DataOut(BaseModel):
    name: str
    data: Any


class PartOut(BaseModel):
    id: str
    text: str


class MessageOut(BaseModel):
    id: str
    seq: int | None = Field(description="Position in the history; null while the turn is open.")
    turn: int
    role: Literal["user", "assistant", "system", "tool"]
    text: str
    attachments: list[AttachmentIn]
    metadata: dict[str, Any]
    created_at: str = Field(examples=["2026-01-31T12:00:00.000Z"])
    partial: bool = Field(False, description="True for what a stopped or failed turn had said.")
    ask: AskOut | None = Field(None, description="What the message asks for.")
    answers: list[AnswerIn] | None = Field(None, description="What the message answers.")
    status: Literal["completed", "failed", "cancelled"] | None = Field(
        None, description="How its turn ended; only on user messages in the history."
    )
    error: ErrorOut | None = Field(None, description="Why the turn failed.")
    steps: list[StepOut] | None = Field(None, description="What the bot did in its turn.")
    data: list[DataOut] | None = Field(None, description="Custom data that its turn keeps.")
    parts: list[PartOut] | None = Field(None, description="The messages that it was merged of.")
    feedback: FeedbackIn | None = Field(None, description="What a person thinks of it.")
    superseded: bool = Field(False, description="True for what was taken back.")


class ReplyOut(BaseModel):
    text: str
    messages: list[MessageOut]
    usage: dict[str, Any] | None = None


class DeliveryOut(BaseModel):
    message: int = Field(description="The place of the message in the reply, from 0.")
    piece: int = Field(description="The place of the piece in the message, from 0.")
    state: Literal["sent", "refused", "given up"]
    why: str | None = None


class TurnOut(BaseModel):
    session: str
    n: int
    status: Literal["queued", "running", "completed", "failed", "cancelled", "merged"]
    attempt: int
    position: int | None = Field(None, description="Unfinished turns that precede a queued one.")
    message: MessageOut | None
    reason: str | None = Field(None, description="Why the bot speaks without a message.")
    merged_into: int | None = Field(None, description="The turn that answers this message too.")
    superseded: bool = Field(False, description="True if it was taken back.")
    reply: ReplyOut | None = None
    delivery: list[DeliveryOut] | None = Field(
        None, description="What has become of the reply in a messenger's chat."
    )
    steps: list[StepOut] | None = Field(None, description="What the bot did while it answered.")
    data: list[DataOut] | None = Field(None, description="Custom data that the turn keeps.")
    error: ErrorOut | None = None
    queued_at: str
    started_at: str | None
    finished_at: str | None


class TimerOut(BaseModel):
    at: str
    key: str
    reason: str | None


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
    owner: str | None = Field(None, description="Whose session it is.")
    private: dict[str, Any] | None = Field(None, description="Only for API keys.")
    timers: list[TimerOut] | None = Field(None, description="What the bot will say at a time.")


class SessionCreated(SessionOut):
    token: str | None = Field(
        None, description="Gives access to this session only; none where a login decides."
    )


class SessionsOut(BaseModel):
    sessions: list[SessionOut]
    has_more: bool
    next: str | None = Field(description="The value of `before` for the next page.")


class TokenOut(BaseModel):
    token: str


class MessagesOut(BaseModel):
    messages: list[MessageOut]
    has_more: bool
    open: list[TurnOut]
    asks: list[str] = Field(description="The ids of the asks that wait for an answer.")
    cursor: str = Field(
        examples=["7-k3f9a1c2"],
        description="Follow /events `after` it: no event is missed or repeated.",
    )


class TurnsOut(BaseModel):
    turns: list[TurnOut]
    has_more: bool


class FileOut(BaseModel):
    id: str
    url: str = Field(description="For `attachments`, and to read the file with.")
    name: str
    type: str = Field(examples=["image/png"])
    size: int


class StoppedOut(BaseModel):
    turns: list[TurnOut] = Field(description="The turns that were open.")


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
