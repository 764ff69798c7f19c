"""The acts of the SQLite store: what one transaction does, statement by statement.

An act checks before it writes, so one that raises a TurnwiseError has changed nothing and its
neighbours in the same transaction stand. It reads the session's row, changes it in memory, and
writes it back once. What it causes for others (events, a session that is ready, a signal) it
leaves in `notices`, which the store tells its listeners after the commit.

Nothing here grows with the length of a conversation: a row by its key, a few appended rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import apsw

from turnwise import events
from turnwise.conversation import Session, TurnRecord, after, placed
from turnwise.errors import (
    ClaimLost,
    KeyReused,
    NotFound,
    QueueFull,
    Unauthorized,
)
from turnwise.events import Draft, Event, attempt_draft, draft, message_draft
from turnwise.stores.base import (
    Appended,
    Claim,
    Desk,
    Notice,
    Outcome,
    Ready,
    Renewal,
    Signal,
    Submission,
    Submitted,
)
from turnwise.stores.readings import Readings, Row, TurnRow

AFFINITY = 0.4
"""Seconds that a turn waits for the worker that keeps its session, before any may take it."""
RESERVATION = 3.0
"""Seconds that a session starts no new turn after someone asked in vain to hold it."""
EXHAUSTED = {
    "code": "attempts_exhausted",
    "message": "The bot stopped working each time it tried to answer this message.",
    "retryable": False,
}


class Acts(Readings):
    """Every act, on one connection. `origin` is this process's number."""

    def __init__(
        self,
        db: apsw.Connection,
        sql: Mapping[str, str],
        clock: Callable[[], float],
        origin: int,
    ) -> None:
        super().__init__(db, sql, clock)
        self._executemany = db.executemany
        self._origin = origin
        self.notices: list[Notice] = []

    # Rows

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

    def _turn(self, session: str, n: int) -> TurnRow:
        found = self._one("turn", session, n)
        if found is None:
            raise NotFound("There is no such turn.")
        return TurnRow(*found)

    def _slide(self, row: Row, now: float) -> None:
        """The session lives on from now; what moves its end by less than a hundredth of its life
        is not worth a write to the index of ends."""
        if abs(now + row.ttl - row.expires_at) > row.ttl / 100:
            row.expires_at = now + row.ttl
            self._do("save_expiry", row.expires_at, row.id)

    def _held(self, claim: Claim) -> Row:
        """The row of a session whose claim this is. Raises ClaimLost."""
        found = self._one("session", claim.session)
        if found is None or found[16] != claim.token:
            raise ClaimLost()
        return Row(*found)

    # The log

    def _append(self, row: Row, drafts: Iterable[Draft], now: float) -> None:
        """Number the drafts and append them; the caller saves the row."""
        appended = []
        for type, turn, tail in drafts:
            row.last_event += 1
            appended.append(Event(row.last_event, type, turn, tail))
        self._executemany(
            self._sql["add_event"],
            [(row.id, e.id, e.turn, e.type, e.tail, now, self._origin) for e in appended],
        )
        self.notices.append(Appended(row.id, appended))

    def _ready(self, row: Row, now: float) -> None:
        """Tell every process's worker that a turn waits, where no event of the log says so."""
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
        """Number on where an earlier session of this name ended: no number means two things."""
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
        self._do("trim_events", session, floor)
        self._append(row, [*drafts, draft(events.RESET, None, now)], now)
        if row.running is not None:
            self._signal("lost", session, row.running, now)
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
        for table in ("session", "state", "turns", "messages", "events"):
            self._do(f"delete_{table}", session)

    # Turns

    def submit(self, wish: Submission, desk: Desk | None) -> tuple[Submitted, Claim | None]:
        row, now = self._find(wish.session), self._clock()
        if row is None and wish.create:
            self.create(wish.session, None, b"{}", wish.ttl)
            row = self._find(wish.session)
        if row is None:
            raise NotFound("There is no such session.")
        if wish.generation is not None and wish.generation != row.generation:
            raise Unauthorized()
        if wish.key is not None:
            found = self._one("turn_by_key", wish.session, wish.key)
            if found is not None:
                return Submitted(self._same(row, TurnRow(*found), wish), False), None
        if row.open >= wish.limit:
            raise QueueFull()
        return self._enter(row, wish, desk, now)

    def _same(self, row: Row, turn: TurnRow, wish: Submission) -> TurnRecord:
        if turn.fingerprint != wish.fingerprint:
            raise KeyReused()
        return self._record(row, turn)

    def _enter(
        self, row: Row, wish: Submission, desk: Desk | None, now: float
    ) -> tuple[Submitted, Claim | None]:
        """Queue the message; with an idle session and a fitting desk, start its turn as well."""
        row.last_turn = n = row.last_turn + 1
        position, first_event = row.open, row.last_event + 1
        message = placed(wish.message, n, None)
        more = (
            {"position": position} if wish.key is None else {"position": position, "key": wish.key}
        )
        drafts = [message_draft(n, now, message, events.QUEUED, **more)]
        row.open += 1
        self._slide(row, now)
        claim = None
        if position == 0:
            row.head = n
            if desk is not None and self._free(row, desk, now):
                claim = self._lease(row, desk, n, 1, wish.message, now, now)
                drafts.append(attempt_draft(events.STARTED, n, now, 1))
            elif row.token is None:
                row.ready_at = now
        if claim is None:
            waiting = (row.id, n, wish.message, wish.key, wish.fingerprint, now, first_event)
            self._execute(self._sql["submit"], waiting)
            if row.ready_at is not None:
                self.notices.append(Ready())
        else:
            values = (row.id, n, wish.message, wish.key, wish.fingerprint, now, now)
            self._execute(self._sql["submit_started"], (*values, first_event, first_event + 1))
        self._append(row, drafts, now)
        self._save(row)
        started = None if claim is None else now
        record = TurnRecord(
            session=row.id,
            n=n,
            status="queued" if claim is None else "running",
            attempt=0 if claim is None else 1,
            position=position if claim is None else None,
            message=message,
            queued_at=now,
            started_at=started,
            first_event=first_event,
        )
        return Submitted(record, True), claim

    @staticmethod
    def _free(row: Row, desk: Desk, now: float) -> bool:
        """Whether `desk` may take the session's next turn at once."""
        kept_by_other = row.keeper is not None and row.keeper != desk.worker
        return row.token is None and not kept_by_other and row.reserved_until <= now

    def _lease(
        self,
        row: Row,
        desk: Desk,
        n: int,
        attempt: int,
        message: bytes,
        queued_at: float,
        now: float,
    ) -> Claim:
        """Give `desk` the session: the row is changed, the caller saves it."""
        row.running, row.ready_at = n, None
        row.token = f"{desk.worker}.{secrets.token_hex(8)}"
        row.lease_until, row.owner = now + desk.lease, self._origin
        epoch = (row.created_at, row.base_seq)
        whole = max(row.base_seq, row.last_seq - desk.history)
        first = max(whole, desk.known(row.id, epoch))
        state = self._one("state", row.id)
        return Claim(
            session=row.id,
            token=row.token,
            turn=n,
            attempt=attempt,
            name=row.name,
            metadata=row.metadata,
            message=message,
            state=state[0] if state else b"{}",
            seq=row.last_seq,
            history=self._placed(row.id, first + 1, row.last_seq),
            history_from=first,
            whole=first == whole,
            epoch=epoch,
            queued_at=queued_at,
        )

    @staticmethod
    def _let_go(row: Row) -> None:
        row.running = row.token = row.lease_until = row.owner = None

    def _line_up(self, row: Row, now: float) -> TurnRow | None:
        """Find the session's next queued turn and mark since when it is ready for a worker.

        Workers take sessions in the order they became ready, so one that sends a hundred
        messages at once holds up nobody else.
        """
        found = self._one("next_turn", row.id, row.head) if row.open else None
        turn = TurnRow(*found) if found else None
        row.head = turn.n if turn else row.last_turn + 1
        row.ready_at = now if turn and row.token is None else None
        return turn

    def claim(self, desk: Desk, limit: int, dead: Sequence[int] = ()) -> list[Claim]:
        """`dead` are processes that hold leases and live no more."""
        now = self._clock()
        for owner in dead:
            for (session,) in self._all("orphans", owner):
                self._lapse(Row(*self._one("session", session)), now)
        for (session,) in self._all("lapsed", now):
            self._lapse(Row(*self._one("session", session)), now)
        claims = []
        for (session,) in self._all("ready", now, desk.worker, now - AFFINITY, limit):
            row = Row(*self._one("session", session))
            claim = self._start(row, desk, now)
            self._save(row)
            if claim is not None:
                claims.append(claim)
        return claims

    def _start(self, row: Row, desk: Desk, now: float) -> Claim | None:
        """Start the session's next turn; one whose attempts are used up fails, and the next is."""
        while (turn := self._line_up(row, now)) is not None:
            assert turn.message is not None
            after(turn.status, "claim")
            if turn.attempt < desk.max_attempts:
                attempt = turn.attempt + 1
                self._append(row, [attempt_draft(events.STARTED, turn.n, now, attempt)], now)
                self._do("start_turn", attempt, now, row.last_event, row.id, turn.n)
                return self._lease(row, desk, turn.n, attempt, turn.message, turn.queued_at, now)
            self._close(row, turn.n, turn.message, Outcome("failed", error=EXHAUSTED), now)
        return None

    def _lapse(self, row: Row, now: float) -> None:
        """The lease ran out: the attempt counts, and the turn goes back (or ends, if stopped)."""
        n = row.running
        self._let_go(row)
        if n:
            turn = self._turn(row.id, n)
            assert turn.message is not None
            if turn.stop:
                self._close(row, n, turn.message, Outcome("cancelled"), now)
            else:
                self._do("requeue_turn", turn.attempt, row.id, n)
        self._line_up(row, now)
        self._save(row)

    def append(self, claim: Claim, drafts: Sequence[Draft]) -> bool:
        row = self._held(claim)
        self._append(row, drafts, self._clock())
        self._do("save_events", row.last_event, row.id)
        return bool(self._turn(row.id, claim.turn).stop)

    def finish(self, claim: Claim, outcome: Outcome) -> Claim | None:
        row, now = self._held(claim), self._clock()
        self._let_go(row)
        self._close(row, claim.turn, claim.message, outcome, now)
        if outcome.state is not None:
            self._do("save_state", row.id, outcome.state)
        row.keeper = outcome.keep
        self._slide(row, now)
        claimed = None
        if row.open:
            desk = outcome.next_desk
            if desk is not None and self._free(row, desk, now):
                claimed = self._start(row, desk, now)
            else:
                self._line_up(row, now)
                self._ready(row, now)
        self._save(row)
        return claimed

    def _close(self, row: Row, n: int, question: bytes, outcome: Outcome, now: float) -> None:
        """Write question and replies into the history and end the turn; the caller saves."""
        first = row.last_seq + 1
        bodies = [question, *outcome.replies]
        self._executemany(
            self._sql["add_message"],
            [(row.id, first + i, n, body) for i, body in enumerate(bodies)],
        )
        row.last_seq += len(bodies)
        drafts = list(outcome.drafts)
        for i, body in enumerate(outcome.replies, first + 1):
            drafts.append(message_draft(n, now, placed(body, n, i)))
        more = {"error": dict(outcome.error)} if outcome.error is not None else {}
        drafts.append(draft(f"turn.{outcome.status}", n, now, **more))
        self._append(row, drafts, now)
        error = events.dumps(outcome.error) if outcome.error is not None else None
        values = (outcome.status, first, len(outcome.replies), error, outcome.usage, now)
        self._execute(self._sql["finish_turn"], (*values, row.id, n))
        row.open -= 1
        row.head = n + 1

    def release(self, claim: Claim) -> None:
        try:
            row = self._held(claim)
        except ClaimLost:
            return
        self._let_go(row)
        turn = self._turn(row.id, claim.turn)
        now = self._clock()
        if turn.stop:
            self._close(row, turn.n, claim.message, Outcome("cancelled"), now)
        else:
            after(turn.status, "release")
            self._do("requeue_turn", turn.attempt - 1, row.id, turn.n)
        self._line_up(row, now)
        row.keeper = None
        self._save(row)
        self._ready(row, now)

    def renew(self, claims: Sequence[Claim], lease: float) -> Renewal:
        lost, cancelled, until = set(), set(), self._clock() + lease
        for claim in claims:
            try:
                row = self._held(claim)
            except ClaimLost:
                lost.add(claim.token)
                continue
            self._do("save_lease", until, row.id)
            if claim.turn and self._turn(row.id, claim.turn).stop:
                cancelled.add(claim.token)
        return Renewal(frozenset(lost), frozenset(cancelled))

    def hold(self, session: str, owner: str, lease: float) -> Claim | None:
        row, now = self._get(session), self._clock()
        if row.lease_until is not None and row.lease_until <= now:
            self._lapse(row, now)
        if row.token is not None:
            row.reserved_until = now + RESERVATION
            self._save(row)
            return None
        row.reserved_until = 0.0
        desk = Desk(owner, lease, 0, 0, lambda *_: row.last_seq)
        claim = self._lease(row, desk, 0, 0, b"", now, now)
        self._save(row)
        return claim

    def save(self, claim: Claim, state: bytes | None) -> None:
        row, now = self._held(claim), self._clock()
        if state is not None:
            self._do("save_state", row.id, state)
        self._let_go(row)
        self._slide(row, now)
        self._line_up(row, now)
        self._save(row)
        self._ready(row, now)

    def forget(self, worker: str, sessions: Sequence[str]) -> None:
        for session in sessions:
            self._do("unkeep", session, worker)

    def cancel(self, session: str, n: int) -> TurnRecord:
        row, now = self._get(session), self._clock()
        turn = self._turn(session, n)
        if turn.status == "queued":
            turn.status, turn.finished_at = after(turn.status, "cancel"), now
            self._do("withdraw_turn", now, session, n)
            row.open -= 1
            self._append(row, [draft(events.CANCELLED, n, now)], now)
            if n == row.head:
                self._line_up(row, now)
            self._save(row)
        elif turn.status == "running" and not turn.stop:
            self._do("stop_turn", session, n)
            self._signal("cancel", session, n, now)
        return self._record(row, turn)

    # Housekeeping

    def sweep(self, retention: float, limit: int, start: int) -> tuple[int, int]:
        """Returns how many sessions were deleted and where the next look at the log starts."""
        now = self._clock()
        expired = self._all("expired", now, limit)
        for (session,) in expired:
            self._purge(session)
            self._signal("gone", session, 0, now)
        self._do("delete_signals", now - 60.0)
        return len(expired), self._trim(now - retention, start, limit * 10)

    def _trim(self, cutoff: float, start: int, limit: int) -> int:
        """Forget old events, a stretch of the log a call, never those of an open turn."""
        upto: dict[str, int] = {}
        rows = self._all("oldest_events", start, limit)
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
            self._do("trim_events", session, id)
            self._do("save_floor", max(row.floor, id), session)
        return old[-1][0] if len(old) == limit else 0

    def fact(self, name: str, value: bytes) -> bytes:
        """The value of a fact, `value` if it had none yet."""
        self._do("add_fact", name, value)
        kept: bytes = self._one("fact", name)[0]
        return kept


def _generation(now: float) -> int:
    """The first generation of a session's tokens: above all of earlier sessions of its name."""
    return int(now * 1000)
