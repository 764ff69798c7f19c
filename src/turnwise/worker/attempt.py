"""Attempt: one attempt at one turn, with its task, its output, and its stop conditions.

It runs the handler, writes the output under its claim, and commits. Each write names the claim,
and a refusal (ClaimLost) ends the attempt at once. A handler that does not stop is abandoned: its
turn ends, and its later output is discarded.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Literal, Protocol

import orjson

from turnwise import telemetry
from turnwise.conversation import MAX_NAME, Message, concluded, not_json, placed, valid_text
from turnwise.conversation.events import Draft
from turnwise.errors import BadOutput, ClaimLost, StoreUnavailable
from turnwise.stores.claim import BEFORE, Claim, Desk, Outcome
from turnwise.stores.notices import Signal
from turnwise.turn import Turn, TurnSession
from turnwise.worker.failing import TIMED_OUT, explained
from turnwise.worker.output import Output, encoded
from turnwise.worker.session_cache import CachedSession
from turnwise.worker.tools import Stop, Supplier, Tools

log = logging.getLogger("turnwise.worker")

STOP_PATIENCE = 2.0
"""Seconds that a handler has to stop before it is abandoned."""
MARGIN = 0.2
"""An attempt stops if it could not renew its lease and this fraction of the lease is left."""

Answer = Callable[[Turn], Awaitable[None]]
Ending = Literal["completed", "failed", "cancelled"]


class Host(Supplier, Protocol):
    """The part of a worker that an attempt uses."""

    name: str
    debug: bool
    answer: Answer
    lease: float
    earlier: int

    def check(self, attempt: Attempt) -> None: ...

    def span(self, claim: Claim) -> AbstractContextManager[Any]: ...

    def next_desk(self) -> Desk | None: ...

    def ended(self, attempt: Attempt, said: Sequence[bytes], next_claim: Claim | None) -> None: ...


class Attempt(Tools):
    """One attempt at one turn, with its task, its output, and its stop conditions."""

    _worker: Host

    def __init__(self, worker: Host, claim: Claim, kept: CachedSession) -> None:
        options = worker.options
        output = Output(
            claim.turn,
            claim.attempt,
            self._write,
            coalesce=options.coalesce,
            limit=options.max_reply,
        )
        super().__init__(worker, claim, kept, output)
        self._turn_given: Turn | None = None
        self._stopped: Stop | None = None
        self.began = time.monotonic()
        self.task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self.good_until = self.began + worker.lease * (1 - MARGIN)
        """The monotonic time until which the lease cannot have expired."""

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        # A separate context: the submitting request's variables must not leak into the turn.
        self.task = loop.create_task(self._run(), context=contextvars.Context())

    # Stopping

    def hear(self, signal: Signal) -> None:
        """This turn was cancelled, or its claim or session is lost."""
        if signal.kind == "cancel" and signal.turn == self.claim.turn:
            self.stop("cancel")
        elif signal.kind == "lost" and signal.turn == self.claim.turn:
            self.stop("lost")
        elif signal.kind == "gone":  # this session, or an earlier one with the same id
            self._worker.check(self)

    def stop(self, why: Stop) -> None:
        """Cancel the handler; if it does not end soon, continue without it."""
        if self._stopped is not None or self._over or self.task is None:
            return
        self._stopped = why
        self._output.close()
        self.task.cancel()
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(STOP_PATIENCE, self._abandon))

    def _abandon(self) -> None:
        if not self._over:
            log.warning(
                "session %s turn %d: the handler does not stop; continuing without it",
                *self._where(),
            )
            self._over = True
            self._worker_task(self._end(None))

    def _worker_task(self, work: Any) -> None:
        self.task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())

    # Running

    async def _run(self) -> None:
        error: BaseException | None = None
        turn: Turn | None = None
        with self._worker.span(self.claim):
            try:
                turn = await self._turn()
                await self._worker.answer(turn)
            except BaseException as raised:
                error = raised
        if self._over:
            return  # it was abandoned; the turn was ended without it
        await self._end(turn, error)

    async def _turn(self) -> Turn:
        claim = self.claim
        if self.kept.history is None:  # dropped since the claim
            limit = self._worker.earlier
            found = await self._worker.store.history(
                claim.session, before=claim.seq + 1, limit=limit
            )
            self._worker.cache.fill(self.kept, found.messages_json)
        message = Message.decode(claim.message) if claim.message else Message(role="system")
        message.turn = claim.turn
        metadata, private = orjson.loads(claim.metadata), orjson.loads(claim.private)
        self._turn_given = Turn(
            TurnSession(claim.session, claim.name, metadata, claim.owner, private),
            claim.turn,
            claim.attempt,
            message,
            state=orjson.loads(claim.state),
            local=self.kept.local,
            history=tuple(self.kept.history or ()),
            tools=self,
            note=orjson.loads(claim.note) if claim.note else None,
            asks=claim.asks,
            reason=claim.reason,
        )
        return self._turn_given

    async def _end(self, turn: Turn | None, error: BaseException | None = None) -> None:
        """Commit the attempt's result, and release its resources."""
        self._over = True
        if self._memory is not None:
            self._memory.over = True
        turn = turn or self._turn_given
        for timer in self._timers:
            timer.cancel()
        self.kept.leave_hung_thread(self._stopped == "timeout")
        said: Sequence[bytes] = ()
        next_claim = None
        outcome_name = "lost"
        try:
            await self._output.settle()
            outcome = self._outcome(turn, error)
            if outcome is not None:
                next_claim = await self._commit(outcome)
                outcome_name = outcome.status
                said = self._said(outcome)
            elif self._stopped == "release":
                await self._worker.store.release(self.claim)
                outcome_name = "released"
        except ClaimLost:
            log.info("session %s turn %d: the claim was lost", *self._where())
        except Exception:
            log.exception("session %s turn %d: cannot be committed", *self._where())
        finally:
            self._measure(outcome_name)
            self._worker.ended(self, said, next_claim)
            self._untie()

    def _untie(self) -> None:
        """Break reference cycles, so that memory is freed now and not by the collector."""
        self._timers.clear()
        self._output.untie()
        self.task = self._turn_given = self._memory = None

    async def _commit(self, outcome: Outcome) -> Claim | None:
        """Finish the turn; while the store is unavailable, retry as long as the lease is valid."""
        until = self.began + self._worker.options.timeout + self._worker.lease
        while True:
            try:
                return await self._worker.store.finish(self.claim, outcome)
            except StoreUnavailable:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)

    def _said(self, outcome: Outcome) -> Sequence[bytes]:
        """The turn's messages in the history."""
        if outcome.said:
            return outcome.said
        # It was committed by a try whose answer was lost.
        bodies = list(outcome.replies)
        if self.claim.message:
            error = outcome.error_json
            bodies.insert(0, concluded(self.claim.message, outcome.status, error))
        first = self.claim.seq + 1
        return [placed(body, self.claim.turn, first + i) for i, body in enumerate(bodies)]

    def _outcome(self, turn: Turn | None, error: BaseException | None) -> Outcome | None:
        """How the attempt ended, or None if this attempt must not report an outcome."""
        error = error or self._output.failure
        if isinstance(error, ClaimLost) or self._stopped in ("lost", "release"):
            return None
        if self._stopped == "timeout":
            log.warning("session %s turn %d failed: timeout", *self._where())
            return self._broken(turn, "failed", TIMED_OUT)
        if self._stopped == "cancel":
            return self._broken(turn, "cancelled", None)
        try:
            if error is None and turn is not None:
                return self._completed(turn)
        except Exception as bad:  # the output cannot be committed
            error = bad
        return self._broken(turn, "failed", explained(error, self._where(), self._worker.debug))

    def _broken(self, turn: Turn | None, status: Ending, error: dict[str, Any] | None) -> Outcome:
        """The turn ends before its reply is whole; what was said is kept, marked as partial."""
        usage = None
        with suppress(TypeError, ValueError):
            usage = orjson.dumps(turn.usage) if turn is not None and turn.usage else None
        for told_by, nothing in ((turn, False), (None, False)):  # with its metadata, or without
            with suppress(BadOutput, TypeError, ValueError):
                return self._ended(
                    told_by, status, partial=True, error=error, usage=usage, nothing=nothing
                )
        # What was said cannot be kept.
        return self._ended(None, status, partial=True, error=error, usage=usage, nothing=True)

    def _ended(
        self,
        turn: Turn | None,
        status: Ending,
        *,
        partial: bool,
        nothing: bool = False,
        **more: Any,
    ) -> Outcome:
        metadata = turn.metadata if turn is not None else None
        messages, told = self._output.finish(partial=partial, metadata=metadata)
        if nothing:
            messages, told = [], BEFORE
        asks = [] if partial else [(i, m.ask.id) for i, m in enumerate(messages) if m.ask]
        replies = encoded(messages)
        drafts = self._output.rest()  # it also ends the steps that run
        return Outcome(
            status,
            replies=replies,
            drafts=drafts,
            told=told,
            asks=asks,
            steps=self._output.steps_taken(),
            data=self._output.data,
            next_desk=self._worker.next_desk(),
            keep=self._worker.name if self.kept.sticky else None,
            **more,
        )

    def _completed(self, turn: Turn) -> Outcome:
        try:
            usage = orjson.dumps(turn.usage) if turn.usage is not None else None
        except (TypeError, ValueError) as bad:
            raise BadOutput("turn.usage is not JSON.") from bad
        try:
            state = orjson.dumps(turn.state)
        except (TypeError, ValueError) as bad:
            where, session, n = not_json(turn.state), *self._where()
            log.error("session %s turn %d: state%s is not JSON: %s", session, n, where, bad)
            raise BadOutput("The session's state is not JSON.", code="bad_state") from bad
        changed = None if state == self.claim.state else state
        if changed is not None:
            check_state(changed, self._worker.options.max_state)
        name = None if turn.session.name == self.claim.name else checked_name(turn.session.name)
        outcome = self._ended(
            turn, "completed", partial=False, state=changed, usage=usage, name=name
        )
        if not outcome.replies:
            log.info("session %s turn %d: the handler returned nothing to say", *self._where())
        return outcome

    async def _write(self, drafts: Sequence[Draft]) -> None:
        """Append deltas. An unavailable store delays them; a lost claim ends the attempt."""
        while True:
            try:
                stop = await self._worker.store.append(self.claim, drafts)
                break
            except ClaimLost:
                self.stop("lost")
                raise
            except StoreUnavailable:
                if self._over or self._stopped is not None:
                    raise  # the commit contains them
                await asyncio.sleep(0.2)
        if stop:
            self.stop("cancel")

    def _where(self) -> tuple[str, int]:
        return telemetry.named(self.claim.session), self.claim.turn

    def _measure(self, outcome: str) -> None:
        telemetry.turn_ended(
            outcome,
            queued=max(0.0, time.time() - self.claim.queued_at - (time.monotonic() - self.began)),
            took=time.monotonic() - self.began,
            first=self._output.first_delta and self._output.first_delta - self.began,
        )


def checked_name(name: Any) -> str | None:
    """A name that a handler has given to its session. Raises BadOutput."""
    if name is not None and (not isinstance(name, str) or len(name) > MAX_NAME):
        raise BadOutput(f"A session's name is a text of at most {MAX_NAME} characters.")
    return None if name is None else valid_text(name)


def check_state(state: bytes, most: int) -> None:
    """Raises BadOutput if an encoded state is larger than `most` bytes: it is written with every
    turn that changes it."""
    if len(state) > most:
        raise BadOutput(
            f"The session's state has {len(state):,} bytes as JSON, at most {most:,} are kept: put "
            "large data where you keep your own, and its key into the state.",
            code="state_too_large",
        )
