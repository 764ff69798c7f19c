"""Messages: what one side said, and its encoding.

A message is encoded once, in the form that stores keep: short, and without its position in the
session, because the store assigns the position (`seq`) in the act that commits it. `placed` makes
of the bytes what clients read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from turnwise.conversation.asks import Answer, Asked, AskKind, new_ask_id
from turnwise.conversation.stamps import iso, seconds
from turnwise.errors import Damaged
from turnwise.identity import bits

log = logging.getLogger("turnwise.store")

Role = Literal["user", "assistant", "system", "tool"]

Status = Literal["queued", "running", "completed", "failed", "cancelled", "merged"]


def new_message_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits, so ids sort by time."""
    stamp = time.time_ns() // 1_000_000
    text = f"{stamp:012x}7{bits(12):03x}{0x8 | bits(2):x}{bits(60):015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@dataclass(slots=True)
class Attachment:
    """A file or image of a message, by reference: Turnwise never fetches `url`.

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
    """One message. `id` and `created_at` (seconds since 1970) are generated for each message.

    `seq` is its position in the session's history and `turn` the turn it belongs to; both are None
    until the store has committed it. `partial` marks the text of a cancelled reply. A user message
    in the history has the result of its turn: its `status`, and the `error` if the turn failed.
    A message that asks has an `ask`; one that answers has `answers`. One that was merged of several
    has them as `parts`: each with its `id` and `text`.
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
    ask: Asked | None = None
    answers: Sequence[Answer] = ()
    parts: Sequence[Mapping[str, str]] = ()

    def encode(self) -> bytes:
        """JSON as stores keep it: without its position, its turn's result, and what is empty.

        Raises TypeError if metadata is not JSON.
        """
        return b'{%b"role":"%b","id":"%b","text":%b,"created_at":"%b"%b}' % (
            self._more() if self._is_more else b"",
            self.role.encode(),
            self.id.encode(),
            orjson.dumps(self.text),
            iso(self.created_at).encode(),
            b',"partial":true' if self.partial else b"",
        )

    @property
    def _is_more(self) -> bool:
        return bool(self.attachments or self.metadata or self.ask or self.answers or self.parts)

    def _more(self) -> bytes:
        attachments = [attachment.as_dict() for attachment in self.attachments]
        more: dict[str, Any] = {"attachments": attachments, "metadata": self.metadata}
        if self.ask is not None:
            more["ask"] = self.ask.as_dict()
        if self.answers:
            more["answers"] = [answer._asdict() for answer in self.answers]
        if self.parts:
            more["parts"] = self.parts
        return orjson.dumps(more)[1:-1] + b","

    @classmethod
    def decode(cls, data: bytes | Mapping[str, Any]) -> Message:
        """The inverse of `encode`, with or without a position."""
        body = data if isinstance(data, Mapping) else orjson.loads(data)
        return cls(
            text=body["text"],
            attachments=[Attachment(**attachment) for attachment in body.get("attachments", ())],
            metadata=body.get("metadata") or {},
            role=body["role"],
            id=body["id"],
            created_at=seconds(body["created_at"]),
            seq=body.get("seq"),
            turn=body.get("turn"),
            partial=body.get("partial", False),
            status=body.get("status"),
            error=Failure(**body["error"]) if body.get("error") else None,
            ask=Asked.of(body["ask"]) if body.get("ask") else None,
            answers=[Answer(**answer) for answer in body["answers"]] if "answers" in body else (),
            parts=body.get("parts", ()),
        )

    @classmethod
    def begun(cls, head: Mapping[str, Any], at: float) -> Message:
        """The message of a `message.started` of that time, still without a text."""
        return cls(
            attachments=[Attachment(**attachment) for attachment in head.get("attachments", ())],
            metadata=head.get("metadata") or {},
            role=head["role"],
            id=head["id"],
            created_at=at,
        )

    @classmethod
    def merged(cls, messages: Sequence[Message]) -> Message:
        """One message of several that a person has sent one after another."""
        first = messages[0]
        parts: list[Mapping[str, str]] = []
        for message in messages:
            parts += message.parts or [{"id": message.id, "text": message.text}]
        return cls(
            text="\n\n".join(message.text for message in messages if message.text),
            attachments=[file for message in messages for file in message.attachments],
            metadata={name: v for message in messages for name, v in message.metadata.items()},
            role=first.role,
            id=first.id,
            created_at=first.created_at,
            answers=[answer for message in messages for answer in message.answers],
            parts=parts,
        )


class Ask(Message):
    """A message that asks the person, and whose turn ends: the answer is a turn of its own.

    `choices` are the possible answers, shown as buttons; without them any value is one. `kind`
    "form" shows `data` as a form, "tool" asks the client to run the tool `name`. `turn.answers` of
    a later turn names this ask by `ask.id`. Raises TypeError, ValueError for what cannot be asked.
    """

    ask: Asked

    def __init__(
        self,
        text: str = "",
        *,
        choices: Sequence[str] | None = None,
        data: Any = None,
        kind: AskKind = "question",
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(text, metadata=dict(metadata or {}))
        self.ask = Asked(new_ask_id(), kind, None, name, data).offering(choices)


_PLAIN = b'{"role"'  # neither attachments nor metadata
_WHOLE = b'{"id"'  # as headers of format 3 had it: nothing omitted, in a history with the result


def renewed(encoded: bytes) -> bytes:
    """An accepted message in today's form, whatever version has stored it."""
    return Message.decode(encoded).encode() if encoded.startswith(_WHOLE) else encoded


def concluded(encoded: bytes, status: Status, error: bytes | None) -> bytes:
    """A user's encoded message with the result of its turn, as the history shows it."""
    if encoded.startswith(_WHOLE):
        return encoded
    why = b',"error":%b' % error if error else b""
    return b'%b,"status":"%b"%b}' % (encoded[:-1], status.encode(), why)


def parsed(encoded: bytes, session: str) -> Any:
    """Parse a session's stored JSON. Raises Damaged and logs the session's id."""
    try:
        return orjson.loads(encoded)
    except ValueError:
        log.error("session %r: its stored data cannot be read; see `turnwise check`", session)
        raise Damaged() from None


def placed(encoded: bytes, turn: int, seq: int | None) -> bytes:
    """An encoded message as clients read it, with its position in the session, without decoding."""
    place = b"null" if seq is None else b"%d" % seq
    if encoded.startswith(_PLAIN):
        return b'{"seq":%b,"turn":%d,"attachments":[],"metadata":{},%b' % (
            place, turn, encoded[1:],
        )  # fmt: skip
    return b'{"seq":%b,"turn":%d,%b' % (place, turn, encoded[1:])


def valid_text(text: str) -> str:
    """`text` with surrogates joined where they pair and replaced where they do not."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def not_json(state: Mapping[str, Any]) -> str:
    """Which key of a state cannot be encoded, as an index expression."""
    for key, value in state.items():
        try:
            orjson.dumps({key: value})
        except (TypeError, ValueError):
            return f"[{key!r}]"
    return ""
