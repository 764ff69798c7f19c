"""What a conversation is made of: sessions, messages, turns, and the states a turn may pass.

A turn's states are a table. Every arrow is one atomic act of the store; an arrow that is not
here does not exist:

    queued    -> running     claim: the session's first unfinished turn, no live claim; attempt += 1
    queued    -> cancelled   cancel (the person withdraws it) or reset
    running   -> completed   finish: reply, state and final event land together
    running   -> failed      finish: the handler raised, timed out, or attempts are used up
    running   -> cancelled   finish after cancel, or reset
    running   -> queued      release (the attempt is not counted) or a lapsed lease (it is)

A message is encoded once, without its place in the session, because the store gives the place
(`seq`) inside the act that commits it; `placed` then adds it to the bytes.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import orjson

from turnwise.errors import Damaged, Invalid
from turnwise.identity import bits

log = logging.getLogger("turnwise.store")

Role = Literal["user", "assistant", "system", "tool"]
Status = Literal["queued", "running", "completed", "failed", "cancelled"]

TRANSITIONS: Mapping[Status, Mapping[str, Status]] = {
    "queued": {"claim": "running", "cancel": "cancelled", "reset": "cancelled"},
    "running": {
        "complete": "completed",
        "fail": "failed",
        "stop": "cancelled",
        "reset": "cancelled",
        "release": "queued",
        "lapse": "queued",
    },
    "completed": {},
    "failed": {},
    "cancelled": {},
}
OPEN: frozenset[Status] = frozenset({"queued", "running"})


def after(status: Status, act: str) -> Status:
    """The status a turn has after `act`; raises Invalid where the table has no such arrow."""
    try:
        return TRANSITIONS[status][act]
    except KeyError:
        raise Invalid(f"A turn that is {status} cannot {act}.") from None


def new_session_id() -> str:
    """A session id made by the server: 144 random bits, URL-safe."""
    return secrets.token_urlsafe(18)


def checked_session_id(session_id: str) -> str:
    """`session_id` itself if it may name a session: 1 to 200 characters of valid Unicode.

    Raises Invalid otherwise.
    """
    if not isinstance(session_id, str) or not 1 <= len(session_id) <= 200:
        raise Invalid("A session id is a text of 1 to 200 characters.")
    if not session_id.isascii() and any("\ud800" <= c <= "\udfff" for c in session_id):
        raise Invalid("A session id must be valid Unicode.")
    return session_id


def new_message_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits, so ids sort by time."""
    stamp = time.time_ns() // 1_000_000
    text = f"{stamp:012x}7{bits(12):03x}{0x8 | bits(2):x}{bits(60):015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=64)  # what one act writes has one stamp
def iso(moment: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`."""
    millis = int(moment * 1000)
    return f"{_iso_second(millis // 1000)}.{millis % 1000:03d}Z"


@lru_cache(maxsize=8)  # and many stamps fall into the same second
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def seconds(text: str) -> float:
    """The inverse of `iso`."""
    return datetime.fromisoformat(text).timestamp()


@dataclass(slots=True)
class Attachment:
    """Something that came with a message, by reference: Turnwise never fetches `url`.

    `type` is a media type or a word such as "image"; `url` an http(s) or data URL; `size` bytes.
    """

    type: str
    url: str
    name: str | None = None
    size: int | None = None

    def as_dict(self) -> dict[str, Any]:
        whole = {"type": self.type, "url": self.url, "name": self.name, "size": self.size}
        return {key: value for key, value in whole.items() if value is not None}


class Failure(NamedTuple):
    """Why a turn failed: a code for programs, a message for people, and whether to try again."""

    code: str
    message: str
    retryable: bool = False


@dataclass(slots=True)
class Message:
    """What one side said. `id` and `created_at` (seconds since 1970) are made per message.

    `seq` is its place in the session's history and `turn` the turn it belongs to; both are None
    until the store has committed it. `partial` marks the text of a reply that was cancelled. A
    person's message in the history says how its turn ended: its `status`, and the `error` if it
    failed.
    """

    text: str = ""
    attachments: list[Attachment] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    role: Role = "assistant"
    id: str = field(default_factory=new_message_id)
    created_at: float = field(default_factory=time.time)
    seq: int | None = None
    turn: int | None = None
    partial: bool = False
    status: Status | None = None
    error: Failure | None = None

    def encode(self) -> bytes:
        """JSON without its place and its end. Raises TypeError when metadata is not JSON."""
        attachments = [attachment.as_dict() for attachment in self.attachments]
        return (
            b'{"id":"%b","role":"%b","text":%b,"attachments":%b,"metadata":%b,"created_at":"%b"%b}'
            % (
                self.id.encode(),
                self.role.encode(),
                orjson.dumps(self.text),
                orjson.dumps(attachments) if attachments else b"[]",
                orjson.dumps(self.metadata) if self.metadata else b"{}",
                iso(self.created_at).encode(),
                b',"partial":true' if self.partial else b"",
            )
        )

    @classmethod
    def decode(cls, data: bytes | Mapping[str, Any]) -> Message:
        """The inverse of `encode`, with or without a place."""
        body = data if isinstance(data, Mapping) else orjson.loads(data)
        return cls(
            text=body["text"],
            attachments=[Attachment(**attachment) for attachment in body["attachments"]],
            metadata=body["metadata"],
            role=body["role"],
            id=body["id"],
            created_at=seconds(body["created_at"]),
            seq=body.get("seq"),
            turn=body.get("turn"),
            partial=body.get("partial", False),
            status=body.get("status"),
            error=Failure(**body["error"]) if body.get("error") else None,
        )


def concluded(encoded: bytes, status: Status, error: bytes | None) -> bytes:
    """A person's encoded message with the end of its turn added, as the history keeps it."""
    why = b"" if error is None else b',"error":%b' % error
    return b'%b,"status":"%b"%b}' % (encoded[:-1], status.encode(), why)


def parsed(encoded: bytes, session: str) -> Any:
    """What was stored of a session as JSON. Raises Damaged, and logs which session it is."""
    try:
        return orjson.loads(encoded)
    except ValueError:
        log.error("session %r: what is stored of it cannot be read; see `turnwise check`", session)
        raise Damaged() from None


def placed(encoded: bytes, turn: int, seq: int | None) -> bytes:
    """An encoded message with its place in the session added, still without decoding it."""
    place = b"null" if seq is None else b"%d" % seq
    return b'{"seq":%b,"turn":%d,%b' % (place, turn, encoded[1:])


@dataclass(slots=True)
class Session:
    """One conversation as its owner sees it. Times are seconds since 1970, `ttl` is seconds."""

    id: str
    name: str | None
    metadata: dict[str, Any]
    created_at: float
    expires_at: float
    ttl: float
    status: Literal["idle", "queued", "running"]
    turns: int
    messages: int
    last_event: int
    generation: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "metadata": self.metadata,
            "created_at": iso(self.created_at),
            "expires_at": iso(self.expires_at),
            "ttl": self.ttl,
            "status": self.status,
            "turns": self.turns,
            "messages": self.messages,
        }


@dataclass(slots=True)
class Reply:
    """The answer to a turn: its whole `text`, its messages, and what it cost."""

    text: str
    messages: list[Message]
    turn: int
    usage: dict[str, Any] | None = None
    partial: bool = False


@dataclass(slots=True)
class TurnRecord:
    """A turn as it is kept: where it stands, what was said, what was answered.

    Times are seconds since 1970. `position` counts the unfinished turns before a queued one. The
    fields that end in `_json` are what the store holds, encoded and placed; `message`, `reply`,
    `error` and `usage` are the same decoded.
    """

    session: str
    n: int
    status: Status
    attempt: int
    queued_at: float
    first_event: int
    position: int | None = None
    message_json: bytes | None = None
    replies_json: Sequence[bytes] = ()
    error_json: bytes | None = None
    usage_json: bytes | None = None
    started_at: float | None = None
    finished_at: float | None = None

    def check(self) -> TurnRecord:
        """The record itself. Raises Damaged when something of it cannot be read."""
        for body in (self.message_json, *self.replies_json, self.error_json, self.usage_json):
            if body is not None:
                parsed(body, self.session)
        return self

    @property
    def open(self) -> bool:
        """Whether it is not finished: queued or running."""
        return self.status in OPEN

    @property
    def message(self) -> Message | None:
        """What the person said; None when a reset has removed it."""
        return Message.decode(self.message_json) if self.message_json is not None else None

    @property
    def reply(self) -> Reply | None:
        """What the bot answered, or None where there is no answer (yet)."""
        if not self.replies_json:
            return Reply("", [], self.n, self.usage) if self.status == "completed" else None
        messages = [Message.decode(reply) for reply in self.replies_json]
        return Reply(
            text="\n".join(message.text for message in messages if message.text),
            messages=messages,
            turn=self.n,
            usage=self.usage,
            partial=any(message.partial for message in messages),
        )

    @property
    def error(self) -> Failure | None:
        """Why it failed, or None."""
        if self.error_json is None:
            return None
        return Failure(**orjson.loads(self.error_json))

    @property
    def usage(self) -> dict[str, Any] | None:
        """What the reply cost, as the handler said it (`turn.usage`)."""
        if self.usage_json is None:
            return None
        found: dict[str, Any] = orjson.loads(self.usage_json)
        return found

    def encode(self) -> bytes:
        """The turn as JSON, the messages inside it forwarded as the bytes they are."""
        body: dict[str, Any] = {
            "session": self.session,
            "n": self.n,
            "status": self.status,
            "attempt": self.attempt,
        }
        if self.position is not None:
            body["position"] = self.position
        body["message"] = orjson.Fragment(self.message_json or b"null")
        if self.replies_json:
            body["reply"] = self._reply()
        if self.error_json is not None:
            body["error"] = orjson.Fragment(self.error_json)
        body["queued_at"] = iso(self.queued_at)
        body["started_at"] = self.started_at and iso(self.started_at)
        body["finished_at"] = self.finished_at and iso(self.finished_at)
        return orjson.dumps(body)

    def _reply(self) -> dict[str, Any]:
        texts = [orjson.loads(reply)["text"] for reply in self.replies_json]
        reply: dict[str, Any] = {
            "text": "\n".join(text for text in texts if text),
            "messages": [orjson.Fragment(reply) for reply in self.replies_json],
        }
        if self.usage_json is not None:
            reply["usage"] = orjson.Fragment(self.usage_json)
        return reply
