"""Migration: a file of versions 1 and 2 becomes one of version 3, in one transaction."""

from __future__ import annotations

import logging
from typing import Any

import apsw

from turnwise.conversation import events
from turnwise.conversation.events import Event
from turnwise.stores import rules
from turnwise.stores.earlier import Earlier, Turn
from turnwise.stores.header import Header

log = logging.getLogger("turnwise.store")

PROGRESS = 20_000
"""Sessions between two lines of progress."""
RENAMED = ("session", "state", "turn", "message", "entry", "fact")


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
    whole = _earlier(db, row).whole()
    header, floor = Header.decode(whole.header), row[8]
    db.execute(
        "INSERT INTO header (id, body, ready, keeper, lease, origin, expires, horizon)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (whole.session, whole.header, *rules.index(header)[:5], floor),
    )
    num = db.last_insert_rowid()
    for name, part in whole.parts.items():
        db.execute("INSERT INTO part VALUES (?, ?, ?)", (num, name, part))
    for number, state in whole.states.items():
        db.execute("INSERT INTO state VALUES (?, ?, ?)", (num, number, state))
    for key, stands_for in whole.keys:
        db.execute("INSERT INTO key VALUES (?, ?, ?)", (num, key, stands_for))
    for entry in whole.entries:
        db.execute(
            "INSERT INTO entry (num, last, kind, turn, seq, at, body, origin)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (num, *entry),
        )


def _earlier(db: apsw.Connection, row: Any) -> Earlier:
    (
        id, name, metadata, created, ttl, expires, generation, last_event, floor, last_turn,
        base_turn, last_seq, base_seq, open_, _, _, token, lease, ready, keeper, reserved,
        owner,
    ) = row  # fmt: skip
    turns = [
        Turn(*t[1:]) for t in db.execute("SELECT * FROM old_turn WHERE session=? ORDER BY n", (id,))
    ]
    state = db.execute("SELECT data FROM old_state WHERE session=?", (id,)).fetchone()
    log: list[tuple[Event, float]] = []
    for last, packed, at in db.execute(
        "SELECT last, body, at FROM old_entry WHERE session=? ORDER BY last", (id,)
    ):
        log += [(event, at) for event in events.unpack(packed, last)]

    def messages(first: int, last: int) -> list[bytes]:
        found = db.execute(
            "SELECT body FROM old_message WHERE session=? AND seq BETWEEN ? AND ? ORDER BY seq",
            (id, first, last),
        )
        return [message for (message,) in found]

    return Earlier(
        id, name, metadata, created, ttl, expires, generation, last_event, floor, last_turn,
        base_turn, last_seq, base_seq, open_, token, lease, owner, ready, keeper, reserved,
        None if state is None else state[0], turns, log, messages,
    )  # fmt: skip
