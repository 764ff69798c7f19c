"""The acts of the SQLite store that create, change and delete sessions, and the base of all acts.

An act checks before it writes, so one that raises a TurnwiseError has changed nothing and does not
affect the other acts in its transaction. It reads the session's row, changes it in memory, and
writes it back once. Its effects (events, a session that is ready, a signal) are collected in
`notices`, which the store delivers to its listeners after the commit.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import apsw

from turnwise.conversation import Session, after, events
from turnwise.conversation.events import Draft, Event, draft, pack
from turnwise.stores.notices import Appended, Notice, Ready, Signal
from turnwise.stores.sqlite.readings import Readings, Row

PROOF = 4096
"""Bytes that a readiness check writes: as many as a turn, so that it needs space on the disk."""


class SessionActs(Readings):
    """Making, changing, emptying and deleting sessions. `origin` is this process's number.

    `erased`: data was deleted and the engine has not handled it yet.
    """

    def __init__(
        self,
        db: apsw.Connection,
        sql: Mapping[str, str],
        clock: Callable[[], float],
        origin: int,
    ) -> None:
        super().__init__(db, sql, clock)
        self._executemany = db.executemany
        self._last_rowid = db.last_insert_rowid
        self.last_entry = 0
        """The position of the entry that was appended last."""
        self._origin = origin
        self.notices: list[Notice] = []
        self.erased = False
        self.incarnation = 0
        """A number that changes when the file is restored with less data."""

    # Shared by all acts

    def _do(self, name: str, *values: Any) -> None:
        self._execute(self._sql[name], values)

    def _save(self, row: Row) -> None:
        self._do(
            "save",
            row.last_event,
            row.last_turn,
            row.last_seq,
            row.open,
            row.head,
            row.running,
            row.token,
            row.lease_until,
            row.ready_at,
            row.keeper,
            row.reserved_until,
            row.owner,
            row.id,
        )

    def _slide(self, row: Row, now: float) -> None:
        """Extend the session's lifetime from now; if its end moves by less than a hundredth of its
        lifetime, the index of ends is not written."""
        if abs(now + row.ttl - row.expires_at) > row.ttl / 100:
            row.expires_at = now + row.ttl
            self._do("save_expiry", row.expires_at, row.id)

    @staticmethod
    def _let_go(row: Row) -> None:
        row.running = row.token = row.lease_until = row.owner = None

    def _append(self, row: Row, drafts: Iterable[Draft], now: float) -> None:
        """Number the drafts and append them; the caller saves the row."""
        appended = []
        for type, turn, tail in drafts:
            row.last_event += 1
            appended.append(Event(row.last_event, type, turn, tail))
        if appended:
            self._do("add_entry", row.id, row.last_event, pack(appended), now, self._origin)
            self.last_entry = self._last_rowid()
            self.notices.append(Appended(row.id, appended))

    def _ready(self, row: Row, now: float) -> None:
        """Notify the workers of all processes that a turn waits, if no event of the log does."""
        if row.ready_at is not None:
            self._do("add_signal", "ready", row.id, 0, now, self._origin)
            self.notices.append(Ready())

    def _signal(self, kind: Any, session: str, turn: int, now: float) -> None:
        self._do("add_signal", kind, session, turn, now, self._origin)
        self.notices.append(Signal(kind, session, turn))

    # Sessions

    def create(self, session: str, name: str | None, metadata: bytes, ttl: float) -> Session:
        row = self._find(session)
        if row is None:
            now = self._clock()
            expired = self._one("session", session)  # and not swept yet
            if expired is not None:
                self._purge(session)
                self._signal("gone", session, 0, now)
            self._do("create", session, name, metadata, now, ttl, now + ttl, _generation(now))
            row = self._get(session)
            if expired is not None:
                self._go_on(row, Row(*expired))
        return row.as_session()

    def _go_on(self, row: Row, last: Row) -> None:
        """Continue the numbers of an earlier session with this id, so that none is used twice."""
        row.last_event = row.floor = last.last_event
        row.last_turn = row.base_turn = last.last_turn
        row.last_seq = row.base_seq = last.last_seq
        row.head = row.last_turn + 1
        self._do("save_bases", row.base_turn, row.base_seq, row.floor, row.id)
        self._save(row)

    def update(self, session: str, changes: Mapping[str, Any]) -> Session:
        row = self._get(session)
        for key in ("name", "metadata", "ttl"):
            if key in changes:
                setattr(row, key, changes[key])
        if "ttl" in changes:
            row.expires_at = self._clock() + row.ttl
        self._do("describe", row.name, row.metadata, row.ttl, row.expires_at, session)
        return row.as_session()

    def rotate(self, session: str) -> int:
        row, now = self._get(session), self._clock()
        generation = max(row.generation + 1, _generation(now))
        self._do("save_generation", generation, session)
        self._signal("token", session, generation, now)
        return generation

    def reset(self, session: str) -> Session:
        row, now = self._get(session), self._clock()
        floor = row.last_event
        drafts = [
            draft(events.CANCELLED, turn.n, now)
            for turn in self._open_turns(row)
            if after(turn.status, "reset")
        ]
        for turn in drafts:
            self._do("withdraw_turn", now, session, turn.turn)
        self._do("forget_turns", session, row.head)
        self._do("blank_turns", session)
        self._do("delete_messages", session)
        self._do("delete_state", session)
        self._do("trim_entries", session, floor)
        self._append(row, [*drafts, draft(events.RESET, None, now)], now)
        if row.running is not None:
            self._signal("lost", session, row.running, now)
        self.erased = True
        row.base_turn, row.base_seq, row.floor = row.last_turn, row.last_seq, floor
        self._do("save_bases", row.base_turn, row.base_seq, row.floor, session)
        row.open, row.head, row.ready_at = 0, row.last_turn + 1, None
        self._slide(row, now)
        self._let_go(row)
        self._save(row)
        return row.as_session()

    def delete(self, session: str) -> bool:
        found = self._one("session", session) is not None
        if found:
            self._purge(session)
            self._signal("gone", session, 0, self._clock())
        return found

    def _purge(self, session: str) -> None:
        self.erased = True
        for table in ("session", "state", "turns", "messages", "entries"):
            self._do(f"delete_{table}", session)

    # Housekeeping

    def sweep(self, retention: float, limit: int, start: int) -> tuple[int, int]:
        """Returns how many sessions were deleted and where the next sweep of the log starts."""
        now = self._clock()
        expired = self._all("expired", now, limit)
        for (session,) in expired:
            self._purge(session)
            self._signal("gone", session, 0, now)
        self._do("delete_signals", now - 60.0)
        return len(expired), self._trim(now - retention, start, limit * 10)

    def _trim(self, cutoff: float, start: int, limit: int) -> int:
        """Delete old events, a part of the log per call, never those of an open turn."""
        upto: dict[str, int] = {}
        rows = self._all("oldest_entries", start, limit)
        old = [row for row in rows if row[3] < cutoff]
        for _, session, id, _ in old:
            upto[session] = max(id, upto.get(session, 0))
        for session, id in upto.items():
            found = self._one("session", session)
            if found is None:
                continue
            row = Row(*found)
            if row.open:
                first_open = min(turn.first_event for turn in self._open_turns(row))
                id = min(id, first_open - 1)
            self._do("trim_entries", session, id)
            self._do("save_floor", max(row.floor, id), session)
        return old[-1][0] if len(old) == limit else 0

    def fact(self, name: str, value: bytes) -> bytes:
        """The value of a fact, `value` if it had none yet."""
        self._do("add_fact", name, value)
        kept: bytes = self._one("fact", name)[0]
        return kept

    def prove(self) -> None:
        """Write test data: readiness promises that writing is possible."""
        self._do("save_fact", "ready", secrets.token_bytes(PROOF))


def _generation(now: float) -> int:
    """The first generation of a session's tokens: higher than any earlier one of this id."""
    return int(now * 1000)
