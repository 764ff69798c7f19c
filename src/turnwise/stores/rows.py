"""Rows: what a store keeps of a session, and the messages and records derived from it. Pure.

A session is one small *header* (header.py) and a sequence of *entries*, only appended. An entry
records one act and never changes; its body is a JSON list, then parts that are JSON already, a
line for each. The session's events are derived from its entries too: see entry_events.py.

    q  a turn was accepted         [n, position, at, op, key, started, closed asks], message, note
                                   if there is one, more; of a closed ask: [id, why, turn, place].
                                   The message is empty where no person sent one; see Question
    w  a queued turn was changed   [n, position, at, accepting op, key, 0, first event, at, op];
                                   then as in q, which it replaces
    s  a queued turn was started   [n, at, op, attempt]
    d  drafts of a running attempt [n, at, op], packed events
    t  a turn was completed, f failed, c cancelled, g merged: its whole record
                                   [n, at, op, keyed, attempt, seq, first event, queued at,
                                   started at, told, waiting, states], error, usage, message,
                                   replies ..., more; see End
    r  the session was reset       [at, op, cancelled turns]
    x  turns were taken back       [at, op, last seq that stays, first turn, last turn, closed asks]
    n  the session was changed     [at, op], the changes
    v  a message was judged        [turn, at, op, message], the feedback
    m  the bot remembers           [n, at, op, bytes of all entries before], the entry's JSON
    o  an act without events       [what, at, op]
    T  F  C  G                     what a reset leaves of t, f, c, g, if the turn had a key or was
                                   open: neither text nor events
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from turnwise.conversation import Status, StepRecord, TurnRecord, concluded, placed, renewed
from turnwise.errors import Damaged
from turnwise.stores.claim import Told
from turnwise.stores.header import Header

ENDS: dict[Status, str] = {"completed": "t", "failed": "f", "cancelled": "c", "merged": "g"}
STATUSES: dict[str, Status] = {end: status for status, end in ENDS.items()}
ENDED = frozenset("tfcgTFCG")
ACCEPTED = frozenset("qw")
DESCRIBED, PRIVATE, JUDGED = "m", "p", "f"
"""The parts of a session that are its metadata, what only its host sees, and the feedback on the
messages of a turn: that with the turn's number."""


class Entry(NamedTuple):
    """One act on a session. `last` is the number of its last event (or of the last one before it).

    `turn` is set where the turn is found by it, `seq` (the position of its first message) where the
    history is; `at` (seconds since 1970) where retention removes it. Of a memory entry `seq` is its
    number in the memory, and `turn` the same below zero, so that it is found like a turn.
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


def operation_of(entry: Entry) -> str:
    """The operation that wrote an entry."""
    match entry.kind:
        case "r" | "x" | "n":
            return str(head_of(entry)[1])
        case "q":
            return str(head_of(entry)[3])
        case "w":
            return str(head_of(entry)[8])
        case _:
            return str(head_of(entry)[2])


_NOTHING: Mapping[str, Any] = MappingProxyType({})
_ABSENT: tuple[Any, ...] = (0, (), None)  # of an end: told, waiting, states
MORE = b"+"
"""What the line that keeps more of a turn begins with; no message does."""


class End(NamedTuple):
    """The entry that ends a turn, taken apart.

    seq: None for a turn that was withdrawn, which is in no history. told: which events of its
    replies are derived from this entry, see Told in claim.py. waiting: the turns that were queued
    then, in order. states: how often the state had changed before it. message: empty where no
    person sent one.
    more: `steps`, `data` and the `note` that are kept with the turn, `asks` the places of the
    replies that ask, `closed` the asks that were too many, `reason` why the bot spoke, `into` the
    turn that it was merged into.
    """

    status: Status
    n: int
    at: float
    attempt: int
    seq: int | None
    first_event: int
    queued_at: float
    started_at: float | None
    told: Told
    waiting: Sequence[int]
    states: int | None
    error: bytes
    usage: bytes
    message: bytes
    replies: Sequence[bytes]
    more: Mapping[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> End:
        """Raises Damaged."""
        try:
            head, *parts = entry.parts()
            error, usage, message, *replies = parts or (b"", b"", b"")
            n, at, _, _, attempt, seq, first_event, queued_at, started_at, *rest = orjson.loads(
                head
            )
            told, waiting, states = (*rest, *_ABSENT[len(rest) :])  # type: ignore[misc]
            more = replies.pop()[1:] if replies and replies[-1].startswith(MORE) else None
            kept = orjson.loads(more) if more is not None else _NOTHING
        except ValueError:
            raise Damaged() from None
        return tuple.__new__(cls, (
            STATUSES[entry.kind.lower()], n, at, attempt, seq, first_event, queued_at, started_at,
            told, waiting, states, error, usage, message, replies, kept,
        ))  # fmt: skip

    def said(self, *, fully: bool = False) -> list[bytes]:
        """The turn's messages in the history, placed: its question, then its replies. `fully`: the
        question includes its turn's steps and data."""
        if self.seq is None:
            return []
        question = concluded(self.message, self.status, self.error) if self.message else b""
        if fully and question and (self.more.get("steps") or self.more.get("data")):
            more = {key: self.more[key] for key in ("steps", "data") if self.more.get(key)}
            question = question[:-1] + b"," + orjson.dumps(more)[1:]
        said = (question, *self.replies) if question else self.replies
        return [placed(message, self.n, i) for i, message in enumerate(said, self.seq)]

    def replied(self) -> list[bytes]:
        """The turn's replies, placed."""
        said = self.said()
        return said[1:] if self.message else said


def is_waiting(entry: Entry) -> bool:
    """Whether an entry is of a turn that waits for a worker."""
    return entry.kind == "q" and not head_of(entry)[5]


def accepted(session: str, entry: Entry, header: Header, position: int) -> TurnRecord:
    """The record of an open turn, from its acceptance and the session's header."""
    n, first, at = acceptance(entry)
    question, message = question_of(entry), entry.parts()[1]
    record = TurnRecord(
        session=session,
        n=n,
        status="queued",
        attempt=0,
        position=position,
        message_json=placed(message, n, None) if message else None,
        note_json=question.note,
        reason=question.reason,
        queued_at=at,
        first_event=first,
    )
    head = header.head
    if head is not None and head.n == n:
        record.status, record.attempt = head.status, head.attempt
        record.started_at, record.first_event = head.started_at, head.first_event
        record.position = position if head.status == "queued" else None
    return record


def acceptance(entry: Entry) -> tuple[int, int, float]:
    """Of an accepted turn: its number, the number of its first event, and when that was."""
    n, _, at, _, _, started, *closed = head_of(entry)
    if entry.kind == "w":
        return n, closed[0], at
    return n, entry.last - int(started) - (len(closed[0]) if closed else 0), at


def ended(session: str, entry: Entry) -> TurnRecord:
    """The record of a turn that has ended."""
    end = End.of(entry)
    messages = end.said()
    question = None
    if end.message:
        question = messages.pop(0) if messages else placed(end.message, end.n, None)
    record = TurnRecord(
        session=session,
        n=end.n,
        status=end.status,
        attempt=end.attempt,
        message_json=question,
        replies_json=messages,
        error_json=end.error or None,
        usage_json=end.usage or None,
        queued_at=end.queued_at,
        started_at=end.started_at,
        finished_at=end.at,
        first_event=end.first_event,
    )
    if end.more:
        record.reason, record.merged_into = end.more.get("reason"), end.more.get("into")
        record.note_json = orjson.dumps(end.more["note"]) if "note" in end.more else None
        record.steps = tuple(StepRecord.of(step) for step in end.more.get("steps", ()))
        record.data = end.more.get("data", ())
    return record


def blank(record: TurnRecord) -> TurnRecord:
    """What is left of a turn that a reset has removed: how it ended, none of its text."""
    record.message_json = record.error_json = record.usage_json = None
    record.replies_json = ()
    return record


def messages_of(entry: Entry, *, fully: bool = False) -> list[bytes]:
    """The messages of a turn in the history; see End.said."""
    if entry.seq is None or entry.turn is None:
        return []
    if fully:
        return End.of(entry).said(fully=True)
    _, error, _, question, *replies = entry.parts()  # a claim reads many of them
    if replies and replies[-1].startswith(MORE):
        replies.pop()
    said = (concluded(question, STATUSES[entry.kind], error), *replies) if question else replies
    return [placed(message, entry.turn, i) for i, message in enumerate(said, entry.seq)]


def turn_of(message: bytes) -> int:
    """The turn of a message that is placed."""
    found: int = orjson.loads(message)["turn"]
    return found


class Remembered(NamedTuple):
    """An entry of a session's memory: its number, the turn that wrote it, its JSON."""

    n: int
    turn: int
    body: bytes


def remembered(entry: Entry) -> Remembered:
    """The memory entry that an entry holds."""
    return Remembered(entry.seq or 0, head_of(entry)[0], entry.body.partition(b"\n")[2])


def blanked(entry: Entry) -> Entry | None:
    """What a reset leaves of an entry: nothing, or how a turn with a key ended."""
    if entry.kind not in ENDED:
        return None
    head = head_of(entry)
    return entry._replace(kind=entry.kind.upper(), seq=None, body=body(head)) if head[3] else None


class Question(NamedTuple):
    """What a turn answers: its message, encoded, and the note of the door that brought it.

    The message is empty where no person sent one: then there is a `reason` for which the bot
    speaks, or it says what is `given`. `merge`: it asked to be merged into the turn before it, or,
    by a group's name, into one of the same group.
    """

    message: bytes
    note: bytes | None = None
    reason: str | None = None
    given: Sequence[bytes] = ()
    merge: bool | str = False

    def parts(self) -> list[bytes]:
        """What an entry of acceptance keeps of it."""
        kept = [self.message] if self.note is None else [self.message, self.note]
        more: dict[str, Any] = {}
        if self.reason is not None:
            more["reason"] = self.reason
        if self.given:
            more["given"] = [orjson.Fragment(message) for message in self.given]
        if self.merge:
            more["merge"] = self.merge
        return [*kept, MORE + orjson.dumps(more)] if more else kept


def question_of(entry: Entry) -> Question:
    """The question of an accepted turn."""
    _, message, *rest = entry.parts()
    if not rest:
        return Question(renewed(message))
    more = orjson.loads(rest.pop()[1:]) if rest[-1].startswith(MORE) else {}
    given = [orjson.dumps(one) for one in more.get("given", ())]
    note = rest[0] if rest else None
    return Question(renewed(message), note, more.get("reason"), given, more.get("merge", False))
