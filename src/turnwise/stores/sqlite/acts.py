"""The acts of the SQLite store on turns: submit, claim, append, finish, release, cancel.

The cost of an act does not grow with the conversation: a row by its key, a few appended rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from turnwise.conversation import TurnRecord, after, concluded, events, placed
from turnwise.conversation.events import Draft, attempt_draft, draft, message_draft
from turnwise.errors import (
    ClaimLost,
    KeyReused,
    NotFound,
    QueueFull,
    Unauthorized,
)
from turnwise.identity import operation
from turnwise.stores.base import (
    AFFINITY,
    EXHAUSTED,
    NO_EPOCH,
    RESERVATION,
    Claim,
    Desk,
    Outcome,
    Renewal,
    Submission,
    Submitted,
)
from turnwise.stores.notices import Ended, Ready
from turnwise.stores.sqlite.readings import Row, TurnRow
from turnwise.stores.sqlite.session_acts import SessionActs


class Acts(SessionActs):
    """Every act, on one connection."""

    # Rows

    def _turn(self, session: str, n: int) -> TurnRow:
        found = self._one("turn", session, n)
        if found is None:
            raise NotFound("This turn does not exist.")
        return TurnRow(*found)

    def _held(self, claim: Claim) -> Row:
        """The row of the session that this claim holds. Raises ClaimLost."""
        found = self._one("session", claim.session)
        row = Row(*found) if found is not None else None
        if row is None or row.token != claim.token:
            raise ClaimLost()
        return row

    # Turns

    def submit(self, wish: Submission, desk: Desk | None) -> tuple[Submitted, Claim | None]:
        row, now = self._find(wish.session), self._clock()
        if row is None and wish.create:
            self.create(wish.session, None, b"{}", wish.ttl)
            row = self._find(wish.session)
        if row is None:
            raise NotFound("This session does not exist.")
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
        """Queue the message; if the session is idle and the desk suitable, also start its turn."""
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
                claim = self._lease(row, desk, n, 1, wish.message, now, now, first_event)
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
            message_json=message,
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
        first_event: int = 0,
    ) -> Claim:
        """Assign the session to `desk`: the row is changed, the caller saves it."""
        row.running, row.ready_at = n, None
        row.token = f"{desk.worker}.{operation()}"
        row.lease_until, row.owner = now + desk.lease, self._origin
        epoch = (row.created_at, row.base_seq)
        whole = max(row.base_seq, row.last_seq - desk.history)
        known_epoch, known = desk.known(row.id)
        first = max(whole, known) if known_epoch == epoch else whole
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
            incarnation=self.incarnation,
            queued_at=queued_at,
            started_at=now,
            first_event=first_event,
        )

    def _line_up(self, row: Row, now: float) -> TurnRow | None:
        """Find the session's next queued turn and mark since when it is ready for a worker.

        Workers take sessions in the order they became ready, so a session that sends a hundred
        messages at once does not delay the others.
        """
        found = self._one("next_turn", row.id, row.head) if row.open else None
        turn = TurnRow(*found) if found else None
        row.head = turn.n if turn else row.last_turn + 1
        row.ready_at = now if turn and row.token is None else None
        return turn

    def claim(self, desk: Desk, limit: int, dead: Sequence[int] = ()) -> list[Claim]:
        """`dead` are processes that hold leases but are no longer alive."""
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
        """Start the session's next turn; one without attempts left fails, and the next starts."""
        while (turn := self._line_up(row, now)) is not None:
            assert turn.message is not None
            after(turn.status, "claim")
            if turn.attempt < desk.max_attempts:
                attempt = turn.attempt + 1
                self._append(row, [attempt_draft(events.STARTED, turn.n, now, attempt)], now)
                self._do("start_turn", attempt, now, row.last_event, row.id, turn.n)
                return self._lease(
                    row, desk, turn.n, attempt, turn.message, turn.queued_at, now, turn.first_event
                )
            self._close(row, turn.n, turn.message, Outcome("failed", error=EXHAUSTED), now)
        return None

    def _lapse(self, row: Row, now: float) -> None:
        """The lease expired: the attempt counts; the turn is queued again (or ends, if stopped)."""
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
        self.notices.append(Ended(outcome.record(claim, row.last_seq + 1, now)))
        self._close(row, claim.turn, claim.message, outcome, now)
        if outcome.state is not None:
            self._do("save_state", row.id, outcome.state)
        row.keeper = outcome.keep
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
        """Write question and replies into the history and end the turn. The caller saves."""
        first = row.last_seq + 1
        error = outcome.error_json
        bodies = [concluded(question, outcome.status, error), *outcome.replies]
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
        values = (outcome.status, first, len(outcome.replies), error, outcome.usage, now)
        self._execute(self._sql["finish_turn"], (*values, row.id, n))
        row.open -= 1
        row.head = n + 1
        self._slide(row, now)

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
        desk = Desk(owner, lease, 0, 0, lambda _: (NO_EPOCH, 0))
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
            self._slide(row, now)
            self._append(row, [draft(events.CANCELLED, n, now)], now)
            if n == row.head:
                self._line_up(row, now)
            self._save(row)
        elif turn.status == "running" and not turn.stop:
            self._do("stop_turn", session, n)
            self._signal("cancel", session, n, now)
        return self._record(row, turn)
