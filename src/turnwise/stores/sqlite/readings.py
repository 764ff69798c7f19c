"""The rows of the SQLite store, and every reading of them.

The cost of a reading does not grow with the conversation: a row by its key, a page of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import apsw

from turnwise.conversation import Session, Status, TurnRecord, events, parsed, placed
from turnwise.conversation.events import Event
from turnwise.errors import NotFound
from turnwise.stores.base import History, Log


@dataclass(slots=True)
class Row:
    """A row of the session table, in the order of its columns."""

    id: str
    name: str | None
    metadata: bytes
    created_at: float
    ttl: float
    expires_at: float
    generation: int
    last_event: int
    floor: int
    last_turn: int
    base_turn: int
    last_seq: int
    base_seq: int
    open: int
    head: int
    running: int | None
    token: str | None
    lease_until: float | None
    ready_at: float | None
    keeper: str | None
    reserved_until: float
    owner: int | None

    def as_session(self) -> Session:
        status = "idle" if not self.open else "running" if self.running else "queued"
        return Session(
            id=self.id,
            name=self.name,
            metadata=parsed(self.metadata, self.id),
            created_at=self.created_at,
            expires_at=self.expires_at,
            ttl=self.ttl,
            status=status,  # type: ignore[arg-type]
            turns=self.last_turn - self.base_turn,
            messages=self.last_seq - self.base_seq,
            last_event=self.last_event,
            generation=self.generation,
        )


@dataclass(slots=True)
class TurnRow:
    """A row of the turn table, in the order of its columns."""

    session: str
    n: int
    status: Status
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


class Readings:
    """Readings on one connection. `clock` is the store's."""

    def __init__(
        self, db: apsw.Connection, sql: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        self._execute = db.execute
        self._sql = sql
        self._clock = clock

    # Rows

    def _one(self, name: str, *values: Any) -> Any:
        return self._execute(self._sql[name], values).fetchone()

    def _all(self, name: str, *values: Any) -> list[Any]:
        return self._execute(self._sql[name], values).fetchall()

    def _find(self, session: str) -> Row | None:
        """The session's row, unless it has expired (one with open turns never does)."""
        found = self._one("session", session)
        if found is None:
            return None
        row = Row(*found)
        return row if row.open or row.token or row.expires_at > self._clock() else None

    def _get(self, session: str) -> Row:
        row = self._find(session)
        if row is None:
            raise NotFound("This session does not exist.")
        return row

    def _open_turns(self, row: Row) -> list[TurnRow]:
        if not row.open:
            return []
        return [TurnRow(*found) for found in self._all("open_turns", row.id, row.head)]

    def _placed(self, session: str, first: int, last: int) -> list[bytes]:
        if first > last:
            return []
        found = self._all("messages_between", session, first, last)
        return [placed(body, turn, seq) for seq, turn, body in found]

    def _record(self, row: Row | None, turn: TurnRow) -> TurnRecord:
        """A turn as callers see it; `row` gives the position of a queued one."""
        position = None
        if row is not None and turn.status == "queued":
            position = self._one("ahead", row.id, row.head, turn.n)[0]
        message: bytes | None = None
        replies: list[bytes] = []
        if turn.seq is not None:
            found = self._placed(turn.session, turn.seq, turn.seq + turn.replies)
            message, replies = (found[0], found[1:]) if found else (None, [])
        elif turn.message is not None:
            message = placed(turn.message, turn.n, None)
        return TurnRecord(
            session=turn.session,
            n=turn.n,
            status=turn.status,
            attempt=turn.attempt,
            position=position,
            message_json=message,
            replies_json=replies,
            error_json=turn.error,
            usage_json=turn.usage,
            queued_at=turn.queued_at,
            started_at=turn.started_at,
            finished_at=turn.finished_at,
            first_event=turn.first_event,
        )

    # The store's readings

    def owners(self) -> list[int]:
        """The processes that hold a lease."""
        return [owner for (owner,) in self._all("owners")]

    def waiting(self) -> int:
        found: int = self._one("waiting")[0]
        return found

    def session(self, session: str) -> Session | None:
        row = self._find(session)
        return row.as_session() if row else None

    def sessions(self, start: str, limit: int) -> list[Session]:
        found = self._all("sessions", start, self._clock(), limit)
        return [Row(*row).as_session() for row in found]

    def turn(self, session: str, n: int) -> TurnRecord | None:
        return self._turn_in(session, self._one("turn", session, n))

    def turn_by_key(self, session: str, key: str) -> TurnRecord | None:
        return self._turn_in(session, self._one("turn_by_key", session, key))

    def _turn_in(self, session: str, found: Any) -> TurnRecord | None:
        """`found` was read first: a finished turn no longer changes."""
        if found is None:
            return None
        turn = TurnRow(*found)
        row = self._find(session) if turn.status == "queued" else None
        return self._record(row, turn)

    def turns(
        self, session: str, status: Status | None, before: int | None, start: int | None, limit: int
    ) -> tuple[list[TurnRecord], bool]:
        row = self._get(session)
        name = "turns_before" if start is None else "turns_after"
        last = before if before is not None else row.last_turn + 1
        found = self._all(name, session, start or 0, last, status, status, limit + 1)
        has_more, found = len(found) > limit, found[:limit]
        if start is None:
            found.reverse()
        return [self._record(row, TurnRow(*turn)) for turn in found], has_more

    def history(self, session: str, before: int | None, start: int | None, limit: int) -> History:
        row = self._get(session)
        if start is not None:
            found = self._all("messages_after", session, start, limit + 1)
        else:
            last = before if before is not None else row.last_seq + 1
            found = self._all("messages_before", session, last, limit + 1)
        has_more, found = len(found) > limit, found[:limit]
        if start is None:
            found.reverse()
        messages = [placed(body, turn, seq) for seq, turn, body in found]
        open_turns = self._open_turns(row)
        cursor = row.last_event
        if open_turns and open_turns[0].status == "running":
            cursor = (open_turns[0].started_event or 1) - 1
        records = [self._record(row, turn) for turn in open_turns]
        return History(messages, has_more, records, cursor)

    def state(self, session: str) -> bytes:
        self._get(session)
        found = self._one("state", session)
        return found[0] if found else b"{}"

    def log(self, session: str, start: int, limit: int, turn: int | None) -> Log | None:
        row = self._find(session)
        if row is None:
            return None
        return Log(self._events(session, start, limit, turn), row.floor, row.last_event)

    @staticmethod
    def _unpacked(session: str, body: bytes, last: int) -> list[Event]:
        try:
            return events.unpack(body, last)
        except ValueError:
            parsed(b"", session)
            raise

    def _events(self, session: str, start: int, limit: int, turn: int | None) -> list[Event]:
        """Up to `limit` events after `start`; of one turn, up to its last."""
        found: list[Event] = []
        for last, body in self._execute(self._sql["log"], (session, start)):
            for event in self._unpacked(session, body, last):
                if event.id <= start or turn not in (None, event.turn):
                    continue
                found.append(event)
                if len(found) == limit or (turn is not None and event.type in events.TERMINAL):
                    return found
        return found
