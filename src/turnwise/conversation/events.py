"""The closed list of events, and their encoding.

A session's log is a sequence of events numbered 1, 2, 3 ... without gaps. The code that causes an
event drafts it (`Draft`: encoded, not numbered), the store numbers it in the act that appends it,
and from then on it is forwarded as bytes: `data` is the JSON object that every channel sends, `sse`
the same as a server-sent event.

U+2028, U+2029 and U+0085 are escaped: JSON allows them raw, but some clients split lines there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from turnwise.conversation.cursors import Cursor
from turnwise.conversation.messages import Failure, Message
from turnwise.conversation.stamps import iso

QUEUED = "turn.queued"
STARTED = "turn.started"
DELTA = "delta"
CUSTOM = "custom"
MESSAGE_STARTED = "message.started"
MESSAGE_ENDED = "message.ended"
MESSAGE = "message"
STEP = "step"
STEP_DELTA = "step.delta"
ASK = "ask"
ASK_CLOSED = "ask.closed"
COMPLETED = "turn.completed"
FAILED = "turn.failed"
CANCELLED = "turn.cancelled"
MERGED = "turn.merged"
CHANGED = "turn.changed"
CUT = "history.cut"
FEEDBACK = "feedback"
SESSION_CHANGED = "session.changed"
RESET = "session.reset"
GAP = "gap"

TYPES = (
    QUEUED, STARTED, MESSAGE_STARTED, DELTA, MESSAGE_ENDED, STEP, STEP_DELTA, CUSTOM, MESSAGE, ASK,
    ASK_CLOSED, COMPLETED, FAILED, CANCELLED, MERGED, CHANGED, CUT, FEEDBACK, SESSION_CHANGED,
    RESET, GAP,
)  # fmt: skip
TERMINAL = frozenset({COMPLETED, FAILED, CANCELLED, MERGED})

_ESCAPES = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


def dumps(value: Any) -> bytes:
    """`value` as one line of JSON that is safe in every line-based protocol."""
    return one_line(orjson.dumps(value))


def loads(data: bytes) -> Any:
    """The inverse of `dumps`."""
    return orjson.loads(data)


def one_line(encoded: bytes) -> bytes:
    """JSON that is already encoded, with the same characters escaped as `dumps` does."""
    if encoded.isascii():
        return encoded
    for raw, escaped in _ESCAPES:
        if raw in encoded:
            encoded = encoded.replace(raw, escaped)
    return encoded


class Draft(NamedTuple):
    """An event that the store has not numbered yet. `tail` is its JSON after the type."""

    type: str
    turn: int | None
    tail: bytes


def draft(type: str, turn: int | None, at: float, **carries: Any) -> Draft:
    """An event of `type` at `at` (seconds since 1970) with its own fields."""
    return Draft(
        type, turn, b"%b%b" % (_head(turn, at), b",%b" % dumps(carries)[1:] if carries else b"}")
    )


def attempt_draft(type: str, turn: int, at: float, attempt: int, more: bytes = b"") -> Draft:
    """An event of an attempt; `more` are its other fields, encoded."""
    return Draft(type, turn, b'%b,"attempt":%d%b}' % (_head(turn, at), attempt, more))


def delta_draft(turn: int, at: float, attempt: int, index: int, text: str) -> Draft:
    """A piece of the text of the reply's message number `index`."""
    more = b',"index":%d,"text":%b' % (index, dumps(text))
    return attempt_draft(DELTA, turn, at, attempt, more)


def message_started_draft(
    turn: int, at: float, attempt: int, index: int, message: Message
) -> Draft:
    """A message of the reply begins; its id is final, and its text follows. What it asks can be
    answered when its turn is committed, so only that it asks is said here."""
    head: dict[str, Any] = {"id": message.id, "role": message.role}
    if message.metadata:
        head["metadata"] = message.metadata
    if message.attachments:
        head["attachments"] = [attachment.as_dict() for attachment in message.attachments]
    if message.ask is not None:
        head["asks"] = True
    more = b',"index":%d,"message":%b' % (index, dumps(head))
    return attempt_draft(MESSAGE_STARTED, turn, at, attempt, more)


def message_ended_draft(turn: int, at: float, attempt: int, index: int) -> Draft:
    """Nothing more is added to a message of the reply."""
    return attempt_draft(MESSAGE_ENDED, turn, at, attempt, b',"index":%d' % index)


def message_draft(turn: int, at: float, message: bytes, type: str = MESSAGE, **more: Any) -> Draft:
    """An event around a message that is already encoded and placed."""
    extra = b",%b" % dumps(more)[1:-1] if more else b""
    return Draft(type, turn, b'%b%b,"message":%b}' % (_head(turn, at), extra, one_line(message)))


def _head(turn: int | None, at: float) -> bytes:
    """The fields that follow the type in the JSON of every event."""
    moment = iso(at).encode()
    return b'"at":"%b"' % moment if turn is None else b'"turn":%d,"at":"%b"' % (turn, moment)


@dataclass(slots=True)
class Event:
    """One entry of a session's log: its number, its type, the turn it belongs to, its JSON."""

    id: int
    type: str
    turn: int | None
    tail: bytes
    tag: str = ""
    """Tells events of different pasts apart: a cursor names the event by number and tag."""
    _sse: bytes | None = field(default=None, compare=False)

    @property
    def encoded(self) -> bytes:
        """The event as a JSON object, in bytes."""
        return b'{"id":%d,"type":"%b",%b' % (self.id, self.type.encode(), self.tail)

    @property
    def cursor(self) -> Cursor:
        """The place in the log behind this event."""
        return Cursor(self.id, self.tag)

    @property
    def sse(self) -> bytes:
        """The event as a server-sent event, encoded once for all readers in this process."""
        if self._sse is None:
            head = (str(self.cursor).encode(), self.type.encode(), self.encoded)
            self._sse = b"id: %b\nevent: %b\ndata: %b\n\n" % head
        return self._sse

    def json(self) -> dict[str, Any]:
        """The event as a dict."""
        body: dict[str, Any] = orjson.loads(self.encoded)
        return body

    @property
    def text(self) -> str:
        """The text of a `delta`; of every other event it is empty."""
        return str(self.json()["text"]) if self.type == DELTA else ""

    @property
    def message(self) -> Message | None:
        """The message in a `message` or a `turn.queued`."""
        return Message.decode(self.json()["message"]) if self.type in (MESSAGE, QUEUED) else None

    @property
    def error(self) -> Failure | None:
        """The error in a `turn.failed`."""
        return Failure(**self.json()["error"]) if self.type == FAILED else None


_BETWEEN_EVENTS, _BETWEEN_FIELDS = b"\x1e", b"\x1f"  # JSON contains neither


def pack(appended: Iterable[Event]) -> bytes:
    """Events with consecutive numbers, as one value."""
    return _BETWEEN_EVENTS.join(
        b"%b\x1f%b\x1f%b" % (e.type.encode(), b"" if e.turn is None else b"%d" % e.turn, e.tail)
        for e in appended
    )


def unpack(body: bytes, last: int, tag: str = "") -> list[Event]:
    """The inverse of `pack`; `last` is the number of the last event, `tag` of the act."""
    packed = body.split(_BETWEEN_EVENTS)
    found, number = [], last - len(packed)
    for one in packed:
        number += 1
        type, turn, tail = one.split(_BETWEEN_FIELDS)
        found.append(Event(number, type.decode(), int(turn) if turn else None, tail, tag))
    return found


def gap(after: int, resume_at: int, at: float) -> Event:
    """Sent to a reader whose cursor cannot be continued: it continues after `resume_at`."""
    found = draft(GAP, None, at, after=after, resume_at=resume_at)
    return Event(resume_at, GAP, None, found.tail)
