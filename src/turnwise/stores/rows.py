"""Rows: what a store keeps of a session, and all that is derived from it. Pure.

A session is one small *header* (header.py) and a sequence of *entries*, only appended. An entry
tells of one act and never changes; its body is a JSON list, then parts that are JSON already, a
line for each. The session's events are derived from its entries by one function, live and in a
replay.

    q  a turn was accepted         [n, position, at, op, key, started], message
    s  a queued turn was started   [n, at, op, attempt]
    d  drafts of a running attempt [n, at, op], packed events
    t  a turn was completed, f failed, c cancelled: its whole record
                                   [n, at, op, keyed, attempt, seq, first event, queued at,
                                   started at], error, usage, message, replies ...; `seq` is None
                                   for a turn that was withdrawn: it is in no history; a 1 behind
                                   them: the only reply's text is also told as a delta
    r  the session was reset       [at, op, cancelled turns]
    o  an act without events       [what, at, op]
    T  F  C                        what a reset leaves of t, f, c, if the turn had a key or was
                                   open: neither text nor events
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from turnwise.conversation import Status, TurnRecord, concluded, events, placed, renewed
from turnwise.conversation.events import Draft, Event, attempt_draft, draft, message_draft
from turnwise.errors import Damaged
from turnwise.stores.header import Header

ENDS: dict[Status, str] = {"completed": "t", "failed": "f", "cancelled": "c"}
STATUSES: dict[str, Status] = {end: status for status, end in ENDS.items()}
ENDED = frozenset("tfcTFC")
DESCRIBED = "m"
"""The part of a session that is its metadata."""


class Entry(NamedTuple):
    """One act on a session. `last` is the number of its last event (or of the last one before it).

    `turn` is set where the turn is found by it, `seq` (the position of its first message) where the
    history is; `at` (seconds since 1970) where retention removes it.
    """

    last: int
    kind: str
    turn: int | None
    seq: int | None
    at: float | None
    body: bytes

    def parts(self) -> list[bytes]:
        """The lines of its body."""
        return self.body.split(b"\n")


def body(head: Sequence[Any], *parts: bytes) -> bytes:
    """An entry's body."""
    return b"\n".join((orjson.dumps(head), *parts))


def head_of(entry: Entry) -> list[Any]:
    """The list that an entry's body begins with. Raises Damaged."""
    try:
        found: list[Any] = orjson.loads(entry.body.partition(b"\n")[0])
    except ValueError:
        raise Damaged() from None
    return found


# Events


def pack(drafts: Iterable[Draft]) -> bytes:
    """Drafts as one value."""
    return events.pack(Event(0, *drafted) for drafted in drafts)


def operation_of(entry: Entry) -> str:
    """The operation that wrote an entry."""
    match entry.kind:
        case "r" | "o":
            return str(head_of(entry)[-2 if entry.kind == "r" else 2])
        case "q":
            return str(head_of(entry)[3])
        case _:
            return str(head_of(entry)[2])


def events_of(entry: Entry) -> list[Event]:
    """The events that an entry tells, in order. Raises Damaged."""
    try:
        if entry.kind == "d":  # most entries of a stream
            head, _, packed = entry.body.partition(b"\n")
            return events.unpack(packed, entry.last, tag_of(orjson.loads(head)[2]))
        tag, drafts = _drafts(entry)
    except (ValueError, TypeError, LookupError):
        raise Damaged() from None
    first = entry.last - len(drafts) + 1
    return [Event(first + i, type, turn, tail, tag) for i, (type, turn, tail) in enumerate(drafts)]


def tag_of(op: str) -> str:
    """What a cursor says of the act that wrote its event: enough to tell two pasts apart."""
    return op.replace("-", "")[-8:]


def _drafts(entry: Entry) -> tuple[str, Sequence[Draft]]:
    head, *parts = entry.parts()
    match entry.kind, orjson.loads(head):
        case "q", [n, position, at, op, key, started]:
            more = {"position": position} if key is None else {"position": position, "key": key}
            message = placed(parts[0], n, None)
            drafts = [message_draft(n, at, message, events.QUEUED, **more)]
            if started:
                drafts.append(attempt_draft(events.STARTED, n, at, 1))
            return tag_of(op), drafts
        case "s", [n, at, op, attempt]:
            return tag_of(op), [attempt_draft(events.STARTED, n, at, attempt)]
        case "t" | "f" | "c", [n, at, op, _, attempt, seq, _, _, _, *told_whole]:
            error, _, _, *replies = parts
            drafts = (
                [
                    message_draft(n, at, placed(reply, n, i))
                    for i, reply in enumerate(replies, seq + 1)
                ]
                if seq
                else []
            )
            if told_whole:
                text = orjson.loads(replies[0])["text"]
                drafts.insert(0, attempt_draft(events.DELTA, n, at, attempt, text))
            why = {"error": orjson.Fragment(error)} if error else {}
            drafts.append(draft(f"turn.{STATUSES[entry.kind]}", n, at, **why))
            return tag_of(op), drafts
        case "r", [at, op, cancelled]:
            drafts = [draft(events.CANCELLED, n, at) for n in cancelled]
            return tag_of(op), [*drafts, draft(events.RESET, None, at)]
    return "", ()


def is_waiting(entry: Entry) -> bool:
    """Whether an entry tells of a turn that waits for a worker."""
    return entry.kind == "q" and not head_of(entry)[5]


# Turns and messages


def accepted(session: str, entry: Entry, header: Header, position: int) -> TurnRecord:
    """The record of an open turn, from its acceptance and the session's header."""
    n, _, at, _, _, started = head_of(entry)
    first = entry.last - (1 if started else 0)
    record = TurnRecord(
        session=session,
        n=n,
        status="queued",
        attempt=0,
        position=position,
        message_json=placed(entry.parts()[1], n, None),
        queued_at=at,
        first_event=first,
    )
    head = header.head
    if head is not None and head.n == n:
        record.status, record.attempt = head.status, head.attempt
        record.started_at, record.first_event = head.started_at, head.first_event
        record.position = position if head.status == "queued" else None
    return record


def ended(session: str, entry: Entry) -> TurnRecord:
    """The record of a turn that has ended."""
    try:
        head, *parts = entry.parts()
        error, usage, message, *replies = parts or (b"", b"", b"")
        n, at, _, _, attempt, seq, first_event, queued_at, started_at, *_ = orjson.loads(head)
    except ValueError:
        raise Damaged() from None
    status = STATUSES[entry.kind.lower()]
    if message and seq is not None:
        message = concluded(message, status, error)
    return TurnRecord(
        session=session,
        n=n,
        status=status,
        attempt=attempt,
        message_json=placed(message, n, seq) if message else None,
        replies_json=[placed(reply, n, i) for i, reply in enumerate(replies, (seq or 0) + 1)],
        error_json=error or None,
        usage_json=usage or None,
        queued_at=queued_at,
        started_at=started_at,
        finished_at=at,
        first_event=first_event,
    )


def blank(record: TurnRecord) -> TurnRecord:
    """What is left of a turn that a reset has removed: how it ended, none of its text."""
    record.message_json = record.error_json = record.usage_json = None
    record.replies_json = ()
    return record


def messages_of(entry: Entry) -> list[bytes]:
    """The messages of a turn in the history, placed: its question, then its replies."""
    if entry.seq is None or entry.turn is None:
        return []
    _, error, _, question, *replies = entry.parts()
    said = (concluded(question, STATUSES[entry.kind], error), *replies)
    return [placed(message, entry.turn, i) for i, message in enumerate(said, entry.seq)]


def blanked(entry: Entry) -> Entry | None:
    """What a reset leaves of an entry: nothing, or how a turn with a key ended."""
    if entry.kind not in ENDED:
        return None
    head = head_of(entry)
    return entry._replace(kind=entry.kind.upper(), seq=None, body=body(head)) if head[3] else None


def question_of(entry: Entry) -> bytes:
    """The message of an accepted turn, encoded."""
    return renewed(entry.parts()[1])
