"""Earlier: sessions as versions before format 3 kept them, read as rows. Pure.

Those versions kept a row for each session, turn, message and act. Every conversation, cursor, token
and key works as before: events keep their numbers, and entries that derive the same events hold
what a session's log still held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from turnwise.conversation import events
from turnwise.conversation.events import Draft, Event
from turnwise.stores.entry_events import pack
from turnwise.stores.header import PLAIN, Head, Header
from turnwise.stores.rows import DESCRIBED, ENDS, Entry, body
from turnwise.stores.whole import Whole

OP = "migrated"


@dataclass(slots=True)
class Turn:
    """A turn, in the order of the columns that it had in SQLite."""

    n: int
    status: Any
    attempt: int
    stop: int
    message: bytes | None
    seq: int | None
    replies: int
    error: bytes | None
    usage: bytes | None
    key: str | None
    fingerprint: str | None
    queued_at: float
    started_at: float | None
    finished_at: float | None
    first_event: int
    started_event: int | None


@dataclass(slots=True)
class Earlier:
    """A session. `log` are its events and when each was written, `messages(first, last)` those of
    its history, by their seq."""

    session: str
    name: str | None
    metadata: bytes
    created: float
    ttl: float
    expires: float
    generation: int
    last_event: int
    floor: int
    last_turn: int
    base_turn: int
    last_seq: int
    base_seq: int
    open: int
    token: str | None
    lease: float | None
    origin: int | None
    ready: float | None
    keeper: str | None
    reserved: float
    state: bytes | None
    turns: Sequence[Turn]
    log: Sequence[tuple[Event, float]]
    messages: Callable[[int, int], Sequence[bytes]]

    def whole(self) -> Whole:
        """The same session in rows."""
        header = Header(
            PLAIN, 1, OP, self.created, self.ttl, self.expires, self.generation, self.name,
            parts="" if self.metadata == b"{}" else DESCRIBED,
            events=self.last_event, turns=self.last_turn, seq=self.last_seq,
            base_event=self.floor, base_turn=self.base_turn,
            base_seq=self.base_seq, states=int(self.state is not None), open=self.open,
            token=self.token, lease=self.lease, origin=self.origin, keeper=self.keeper,
            reserved=self.reserved, ready_at=self.ready,
        )  # fmt: skip
        unfinished = [turn for turn in self.turns if turn.status in ("queued", "running")]
        if unfinished:
            header.head = _head(unfinished[0])
        keys = [
            (turn.key, orjson.dumps([turn.n, turn.fingerprint]))
            for turn in self.turns
            if turn.key is not None
        ]
        states = {} if self.state is None else {1: self.state}
        parts = {DESCRIBED: self.metadata} if header.parts else {}
        return Whole(self.session, header.encode(), list(_entries(self)), keys, states, parts)


def _head(turn: Turn) -> Head:
    return Head(
        turn.n, turn.status, turn.attempt, turn.stop, int(turn.key is not None),
        turn.first_event, turn.queued_at, turn.started_at, turn.started_event,
    )  # fmt: skip


def _entries(was: Earlier) -> Iterator[Entry]:
    """The entries of a session: first of the turns whose events are gone, then of its log."""
    kept = [event for event, _ in was.log]
    told = {event.turn for event in kept if event.type in events.TERMINAL}
    for turn in was.turns:
        if turn.status in ENDS and turn.n not in told:
            yield _ended(was, turn, was.floor)
        elif turn.status not in ENDS and not any(
            e.type == events.QUEUED and e.turn == turn.n for e in kept
        ):
            yield _accepted(turn, turn.message or b"", turn.first_event)
    yield from _log(was, {turn.n: turn for turn in was.turns})


def _log(was: Earlier, turns: dict[int, Turn]) -> Iterator[Entry]:
    """Entries that derive the events of the old log again."""
    for event, at in was.log:
        turn = turns.get(event.turn or 0)
        entry: Entry | None = None
        if event.type == events.MESSAGE:
            continue  # the entry of the turn's end holds it
        if event.type == events.QUEUED and turn is not None:
            entry = _accepted(turn, _message(event), event.id, event)
        elif event.type == events.STARTED and turn is not None:
            attempt = event.json()["attempt"]
            entry = Entry(event.id, "s", None, None, None, body([turn.n, at, OP, attempt]))
        elif event.type in events.TERMINAL and turn is not None:
            entry = _ended(was, turn, event.id)
        elif event.type == events.RESET:
            entry = Entry(event.id, "r", None, None, None, body([at, OP, []]))
        if entry is None:
            packed = body([event.turn, at, OP], pack([Draft(event.type, event.turn, event.tail)]))
            entry = Entry(event.id, "d", None, None, at, packed)
        yield entry


def _message(event: Event) -> bytes:
    """The message of a turn.queued, without its place."""
    return event.tail.partition(b'"message":{"seq":null,"turn":%d,' % (event.turn or 0))[2][:-1]


def _accepted(turn: Turn, message: bytes, last: int, event: Event | None = None) -> Entry:
    told = event.json() if event is not None else {}
    head = [turn.n, told.get("position", 0), turn.queued_at, OP, turn.key, 0]
    if message and not message.startswith(b"{"):
        message = b"{" + message
    return Entry(last, "q", turn.n, None, None, body(head, message))


def _ended(was: Earlier, turn: Turn, last: int) -> Entry:
    """The entry of a turn that has ended; of one that a reset has removed only how it ended."""
    kind, keyed = ENDS[turn.status], int(turn.key is not None)
    messages: Sequence[bytes] = []
    if turn.seq is not None:
        messages = was.messages(turn.seq, turn.seq + turn.replies)
    elif turn.message is not None:
        messages = [turn.message]
    if turn.n <= was.base_turn and not messages:
        kind, keyed, messages = kind.upper(), 1, [b""]
    head = [
        turn.n, turn.finished_at, OP, keyed, turn.attempt, turn.seq, turn.first_event,
        turn.queued_at, turn.started_at,
    ]  # fmt: skip
    parts = (turn.error or b"", turn.usage or b"", *messages)
    return Entry(last, kind, turn.n, turn.seq, None, body(head, *parts))
