"""Migration: a file of versions 1 and 2 becomes one of version 3, in one transaction.

Those versions kept a row for each session, turn, message and act. Every conversation, cursor, token
and key works as before: events keep their numbers, and what a session's log still held is told by
entries that derive the same events.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apsw
import orjson

from turnwise.conversation import events
from turnwise.conversation.events import Draft, Event
from turnwise.stores import rules
from turnwise.stores.header import FORMAT, Head, Header
from turnwise.stores.rows import DESCRIBED, ENDS, Entry, body, pack

log = logging.getLogger("turnwise.store")

OP = "migrated"
PROGRESS = 20_000
"""Sessions between two lines of progress."""
RENAMED = ("session", "state", "turn", "message", "entry", "fact")


@dataclass(slots=True)
class Turn:
    """A row of the turn table of version 2, in the order of its columns."""

    session: str
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


def rename(db: apsw.Connection) -> None:
    """Put the old tables aside, so that the new ones have their names."""
    for table in RENAMED:
        db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    db.execute("DROP INDEX entry_log; DROP TABLE signal")


def move(db: apsw.Connection) -> None:
    """Fill the new tables from the old ones, and drop those."""
    count = db.execute("SELECT count(*) FROM old_session").get
    for done, row in enumerate(db.execute("SELECT * FROM old_session").fetchall()):
        if done and done % PROGRESS == 0:
            log.warning("%s: %d of %d sessions are upgraded", db.filename, done, count)
        _move_session(db, row)
    db.execute("INSERT INTO fact SELECT * FROM old_fact")
    for table in RENAMED:
        db.execute(f"DROP TABLE old_{table}")
    if count:
        log.warning("%s: upgraded, %d sessions", db.filename, count)


def _move_session(db: apsw.Connection, row: Any) -> None:
    (
        id, name, metadata, created, ttl, expires, generation, last_event, floor, last_turn,
        base_turn, last_seq, base_seq, open_, _, _, token, lease, ready, keeper, reserved,
        owner,
    ) = row  # fmt: skip
    turns = [
        Turn(*t) for t in db.execute("SELECT * FROM old_turn WHERE session=? ORDER BY n", (id,))
    ]
    state = db.execute("SELECT data FROM old_state WHERE session=?", (id,)).fetchone()
    header = Header(
        FORMAT, 1, OP, created, ttl, expires, generation, name,
        parts="" if metadata == b"{}" else DESCRIBED,
        events=last_event, turns=last_turn, seq=last_seq,
        base_event=floor if base_turn else 0, base_turn=base_turn, base_seq=base_seq,
        states=int(state is not None), open=open_, token=token, lease=lease, origin=owner,
        keeper=keeper, reserved=reserved, ready_at=ready,
    )  # fmt: skip
    unfinished = [t for t in turns if t.status in ("queued", "running")]
    if unfinished:
        header.head = _head(unfinished[0])
    index = rules.index(header)
    db.execute(
        "INSERT INTO header (id, body, ready, keeper, lease, origin, expires, horizon)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (id, header.encode(), *index, floor),
    )
    num = db.last_insert_rowid()
    if header.parts:
        db.execute("INSERT INTO part VALUES (?, ?, ?)", (num, DESCRIBED, metadata))
    if state is not None:
        db.execute("INSERT INTO state VALUES (?, 1, ?)", (num, state[0]))
    for turn in turns:
        if turn.key is not None:
            stands_for = orjson.dumps([turn.n, turn.fingerprint])
            db.execute("INSERT INTO key VALUES (?, ?, ?)", (num, turn.key, stands_for))
    for entry in _entries(db, id, turns, floor, base_turn):
        db.execute(
            "INSERT INTO entry (num, last, kind, turn, seq, at, body, origin)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (num, *entry),
        )


def _head(turn: Turn) -> Head:
    return Head(
        turn.n, turn.status, turn.attempt, turn.stop, int(turn.key is not None),
        turn.first_event, turn.queued_at, turn.started_at, turn.started_event,
    )  # fmt: skip


def _entries(
    db: apsw.Connection, session: str, turns: list[Turn], floor: int, base_turn: int
) -> Iterator[Entry]:
    """The entries of a session: first of the turns whose events are gone, then of its log."""
    kept: list[Event] = []
    times: dict[int, float] = {}
    rows: Any = db.execute(
        "SELECT last, body, at FROM old_entry WHERE session=? ORDER BY last", (session,)
    )
    for last, packed, at in rows:
        unpacked = events.unpack(packed, last)
        kept += unpacked
        times |= {event.id: at for event in unpacked}
    told = {event.turn for event in kept if event.type in events.TERMINAL}
    for turn in turns:
        if turn.status in ENDS and turn.n not in told:
            yield _ended(db, session, turn, floor, base_turn)
        elif turn.status not in ENDS and not any(
            e.type == events.QUEUED and e.turn == turn.n for e in kept
        ):
            yield _accepted(turn, turn.message or b"", turn.first_event)
    by_number = {turn.n: turn for turn in turns}
    yield from _log(db, session, kept, times, by_number, base_turn)


def _log(
    db: apsw.Connection,
    session: str,
    kept: list[Event],
    times: dict[int, float],
    turns: dict[int, Turn],
    base_turn: int,
) -> Iterator[Entry]:
    """Entries that derive the events of the old log again."""
    for event in kept:
        turn, at = turns.get(event.turn or 0), times[event.id]
        entry: Entry | None = None
        if event.type == events.MESSAGE:
            continue  # the entry of the turn's end tells it
        if event.type == events.QUEUED and turn is not None:
            entry = _accepted(turn, _message(event), event.id, event)
        elif event.type == events.STARTED and turn is not None:
            attempt = event.json()["attempt"]
            entry = Entry(event.id, "s", None, None, None, body([turn.n, at, OP, attempt]))
        elif event.type in events.TERMINAL and turn is not None:
            entry = _ended(db, session, turn, event.id, base_turn)
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


def _ended(db: apsw.Connection, session: str, turn: Turn, last: int, base_turn: int) -> Entry:
    """The entry of a turn that has ended; of one that a reset has removed only how it ended."""
    kind, keyed = ENDS[turn.status], int(turn.key is not None)
    messages: list[bytes] = []
    if turn.seq is not None:
        found = db.execute(
            "SELECT body FROM old_message WHERE session=? AND seq BETWEEN ? AND ? ORDER BY seq",
            (session, turn.seq, turn.seq + turn.replies),
        )
        messages = [message for (message,) in found]
    elif turn.message is not None:
        messages = [turn.message]
    if turn.n <= base_turn and not messages:
        kind, keyed, messages = kind.upper(), 1, [b""]
    head = [
        turn.n, turn.finished_at, OP, keyed, turn.attempt, turn.seq, turn.first_event,
        turn.queued_at, turn.started_at,
    ]  # fmt: skip
    parts = (turn.error or b"", turn.usage or b"", *messages)
    return Entry(last, kind, turn.n, turn.seq, None, body(head, *parts))
