"""Rows: what a store keeps of a session, and all that is derived from it. Pure.

A session is one small *header* and a sequence of *entries* that are only appended. An entry tells
of one act and never changes; its body is a JSON list, then parts that are JSON already, a line for
each. The session's events are derived from its entries by one function, live and in a replay.

    q  a turn was accepted         [n, position, at, op, key, started], message
    s  a queued turn was started   [n, at, op, attempt]
    d  drafts of a running attempt [n, at, op], packed events
    t  a turn was completed, f failed, c cancelled: its whole record
                                   [n, at, op, keyed, attempt, seq, first event, queued at,
                                   started at], error, usage, message, replies ...; `seq` is None
                                   for a turn that was withdrawn: it is in no history
    r  the session was reset       [at, op, cancelled turns]
    o  an act without events       [what, at, op]
    T  F  C                        what a reset leaves of t, f, c, if the turn had a key or was
                                   open: neither text nor events
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from turnwise.conversation import Session, Status, TurnRecord, concluded, events, parsed, placed
from turnwise.conversation.events import Draft, Event, attempt_draft, draft, message_draft
from turnwise.errors import Damaged, StoreUnavailable

FORMAT = 3
"""The format of the headers that this version writes; one with a higher number is left alone."""
ENDS: dict[Status, str] = {"completed": "t", "failed": "f", "cancelled": "c"}
STATUSES: dict[str, Status] = {end: status for status, end in ENDS.items()}
ENDED = frozenset("tfcTFC")
DESCRIBED = "m"
"""The part of a session that is its metadata."""


class Head:
    """The first turn of a mailbox. `keyed`: it has an idempotency key. `started_event` is the
    number of its last turn.started."""

    __slots__ = (
        "attempt",
        "first_event",
        "keyed",
        "n",
        "queued_at",
        "started_at",
        "started_event",
        "status",
        "stop",
    )

    def __init__(
        self,
        n: int,
        status: Status,
        attempt: int,
        stop: int,
        keyed: int,
        first_event: int,
        queued_at: float,
        started_at: float | None = None,
        started_event: int | None = None,
    ) -> None:
        self.n = n
        self.status: Status = status
        self.attempt = attempt
        self.stop = stop
        self.keyed = keyed
        self.first_event = first_event
        self.queued_at = queued_at
        self.started_at = started_at
        self.started_event = started_event

    def values(self) -> list[Any]:
        """Its fields, in the order of the constructor."""
        return [
            self.n,
            self.status,
            self.attempt,
            self.stop,
            self.keyed,
            self.first_event,
            self.queued_at,
            self.started_at,
            self.started_event,
        ]


class Header:
    """What every act on a session needs to know. Times are the store's, in seconds since 1970.

    `count` and `op` are its version: how many acts have changed it, and the last one. `events`,
    `turns`, `seq`: the last number given out; what is at or below `base_*` was removed by a reset.
    `open`: unfinished turns; `head` the first of them. `token`, `lease`, `origin`: the claim, when
    it lapses and the process that holds it; `written` events were written under it. `keeper`: the
    worker that caches this session. `reserved`: until then no turn starts. `ready_at`: since when
    the head waits for a worker. `states`: how often the state has changed, which is the number
    under which it is kept. `parts`: which of the larger parts there are. `last_op` is the act that
    appended the last event.
    """

    __slots__ = (
        "base_event",
        "base_seq",
        "base_turn",
        "count",
        "created",
        "events",
        "expires",
        "format",
        "generation",
        "head",
        "keeper",
        "last_op",
        "lease",
        "name",
        "op",
        "open",
        "origin",
        "owner",
        "parts",
        "ready_at",
        "reserved",
        "seq",
        "states",
        "token",
        "ttl",
        "turns",
        "written",
    )

    def __init__(
        self,
        format: int,
        count: int,
        op: str,
        created: float,
        ttl: float,
        expires: float,
        generation: int,
        name: str | None = None,
        owner: str | None = None,
        parts: str = "",
        events: int = 0,
        last_op: str = "",
        turns: int = 0,
        seq: int = 0,
        base_event: int = 0,
        base_turn: int = 0,
        base_seq: int = 0,
        states: int = 0,
        open: int = 0,
        head: list[Any] | None = None,
        token: str | None = None,
        lease: float | None = None,
        origin: int | None = None,
        written: int = 0,
        keeper: str | None = None,
        reserved: float = 0,
        ready_at: float | None = None,
    ) -> None:
        self.format = format
        self.count = count
        self.op = op
        self.created = created
        self.ttl = ttl
        self.expires = expires
        self.generation = generation
        self.name = name
        self.owner = owner
        self.parts = parts
        self.events = events
        self.last_op = last_op
        self.turns = turns
        self.seq = seq
        self.base_event = base_event
        self.base_turn = base_turn
        self.base_seq = base_seq
        self.states = states
        self.open = open
        self.head = Head(*head) if head is not None else None
        self.token = token
        self.lease = lease
        self.origin = origin
        self.written = written
        self.keeper = keeper
        self.reserved = reserved
        self.ready_at = ready_at

    def encode(self) -> bytes:
        """The header as a JSON list, in the order of the constructor."""
        return orjson.dumps(
            [
                self.format,
                self.count,
                self.op,
                self.created,
                self.ttl,
                self.expires,
                self.generation,
                self.name,
                self.owner,
                self.parts,
                self.events,
                self.last_op,
                self.turns,
                self.seq,
                self.base_event,
                self.base_turn,
                self.base_seq,
                self.states,
                self.open,
                self.head and self.head.values(),
                self.token,
                self.lease,
                self.origin,
                self.written,
                self.keeper,
                self.reserved,
                self.ready_at,
            ]
        )

    @classmethod
    def decode(cls, body: bytes) -> Header:
        """The inverse of `encode`. Raises Damaged; StoreUnavailable for a newer format."""
        try:
            values = orjson.loads(body)
            if values[0] > FORMAT:
                raise StoreUnavailable("A newer Turnwise has written this session.")
            return cls(*values)
        except (ValueError, TypeError, LookupError):
            raise Damaged() from None

    @property
    def version(self) -> str:
        """A value that no other commit on this session ever had."""
        return f"{self.count:x}.{self.op}"

    @property
    def epoch(self) -> tuple[float, int]:
        """The session's period since it was created or reset."""
        return self.created, self.base_seq

    def view(self, id: str, metadata: bytes | None) -> Session:
        """The session as its owner sees it."""
        running = self.head is not None and self.head.status == "running"
        return Session(
            id=id,
            name=self.name,
            metadata=parsed(metadata, id) if metadata else {},
            created_at=self.created,
            expires_at=self.expires,
            ttl=self.ttl,
            status="running" if running else "queued" if self.open else "idle",
            turns=self.turns - self.base_turn,
            messages=self.seq - self.base_seq,
            last_event=self.events,
            generation=self.generation,
        )


class Index(NamedTuple):
    """The parts of a header by which a store finds sessions.

    ready: from then on any worker may take its next turn; `keeper` at once. lease, origin: when its
    claim lapses, and the process that holds it. expires: when it may be deleted.
    """

    ready: float | None
    keeper: str | None
    lease: float | None
    origin: int | None
    expires: float


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
        case "d", [_, _, op]:
            packed = events.unpack(b"\n".join(parts), entry.last)
            return tag_of(op), [Draft(e.type, e.turn, e.tail) for e in packed]
        case "q", [n, position, at, op, key, started]:
            more = {"position": position} if key is None else {"position": position, "key": key}
            message = placed(parts[0], n, None)
            drafts = [message_draft(n, at, message, events.QUEUED, **more)]
            if started:
                drafts.append(attempt_draft(events.STARTED, n, at, 1))
            return tag_of(op), drafts
        case "s", [n, at, op, attempt]:
            return tag_of(op), [attempt_draft(events.STARTED, n, at, attempt)]
        case "t" | "f" | "c", [n, at, op, _, _, seq, *_]:
            error, _, _, *replies = parts
            drafts = (
                [
                    message_draft(n, at, placed(reply, n, i))
                    for i, reply in enumerate(replies, seq + 1)
                ]
                if seq
                else []
            )
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
        n, at, _, _, attempt, seq, first_event, queued_at, started_at = orjson.loads(head)
    except ValueError:
        raise Damaged() from None
    return TurnRecord(
        session=session,
        n=n,
        status=STATUSES[entry.kind.lower()],
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
    return [
        placed(message, entry.turn, i) for i, message in enumerate(entry.parts()[3:], entry.seq)
    ]


def blanked(entry: Entry) -> Entry | None:
    """What a reset leaves of an entry: nothing, or how a turn with a key ended."""
    if entry.kind not in ENDED:
        return None
    head = head_of(entry)
    return entry._replace(kind=entry.kind.upper(), seq=None, body=body(head)) if head[3] else None


def question_of(entry: Entry) -> bytes:
    """The message of an accepted turn, encoded."""
    return entry.parts()[1]


def conclude(
    status: Status, message: bytes, error: bytes | None, usage: bytes | None, *replies: bytes
) -> tuple[bytes, ...]:
    """The parts of the entry that ends a turn, behind its head."""
    return (error or b"", usage or b"", concluded(message, status, error), *replies)
