"""Worker: claims turns, runs the bot's handler, writes the log, commits, lets go.

The rules it keeps:

1. Whatever it writes names its claim, and a refusal (ClaimLost) ends the attempt at once.
2. It renews all its leases in one call; when that fails, it stops by its own monotonic clock
   before the leases can have run out, so it never runs a turn beside its successor for long.
3. A handler that will not stop is abandoned: its turn ends, and what it says later goes nowhere.
4. A wake-up is a hint. Every half second the worker looks by itself.
5. On `drain` it takes nothing new, gives running turns a grace, and hands the rest back.

It knows no channel, no gateway and no bot: `answer(turn)` is all it calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar

import orjson

from turnwise import telemetry
from turnwise.conversation import Message, placed
from turnwise.errors import ClaimLost, StoreUnavailable, TurnError
from turnwise.events import Draft
from turnwise.kept import Keeper, Kept, SessionThread
from turnwise.output import Output
from turnwise.stores.base import Claim, Desk, Notice, Outcome, Ready, Signal, Store
from turnwise.turn import Options, Turn, TurnSession

T = TypeVar("T")
log = logging.getLogger("turnwise.worker")

LOOK = 0.5
"""Seconds between two looks for work that nobody announced."""
STOP_PATIENCE = 2.0
"""Seconds that a handler has to stop before it is abandoned."""
MARGIN = 0.2
"""The share of a lease before its end at which a worker that could not renew stops."""

Answer = Callable[[Turn], Awaitable[None]]
Stop = Literal["cancel", "timeout", "lost", "release"]
Ending = Literal["completed", "failed", "cancelled"]

FAILED = {
    "code": "handler_error",
    "message": "The bot ran into an error while answering.",
    "retryable": True,
}
TIMED_OUT = {
    "code": "timeout",
    "message": "The bot took too long to answer.",
    "retryable": True,
}


class Worker:
    """Answers turns with `answer`, up to `concurrency` at a time; leases are `lease` seconds."""

    def __init__(
        self,
        store: Store,
        answer: Answer,
        options: Options,
        *,
        concurrency: int = 100,
        lease: float = 30.0,
        name: str | None = None,
    ) -> None:
        self.name = name or f"w{secrets.token_hex(6)}"
        self.store = store
        self.answer = answer
        self.options = options
        self._concurrency = concurrency
        self.lease = lease
        self._attempts: dict[str, Attempt] = {}
        self._offered = 0
        self._backlog = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._draining = False
        self._traced = telemetry.traced()
        self._tasks: list[asyncio.Task[None]] = []
        self._unlisten: Callable[[], None] = lambda: None
        self.earlier = max(1, options.history - 1)  # the message itself is the last of them
        self._keeper = Keeper(history=options.history - 1)
        self._desk = Desk(
            self.name, lease, options.max_attempts, options.history - 1, self._keeper.known
        )

    # Life

    def start(self) -> None:
        """Begin to take turns."""
        self._unlisten = self.store.listen(self._hear)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._claim_forever(), name="turnwise-claims"),
            loop.create_task(self._renew_forever(), name="turnwise-leases"),
        ]

    def retire(self) -> None:
        """Take no more turns; running ones go on."""
        self._draining = True
        self._wake.set()

    async def drain(self, grace: float) -> None:
        """Retire, give running turns `grace` seconds, hand the others back to their mailboxes."""
        self.retire()
        # A claim under way comes to its end: what it brings is run or handed back, not left.
        await asyncio.wait(self._tasks[:1], timeout=STOP_PATIENCE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._until_idle()
        for attempt in list(self._attempts.values()):
            attempt.stop("release")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_PATIENCE + 1.0):
                await self._until_idle()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._unlisten()
        with contextlib.suppress(StoreUnavailable):
            await self.store.forget(self.name, self._keeper.sticky())
        self._keeper.close()

    async def _until_idle(self) -> None:
        while self._attempts or self._offered:
            self._idle.clear()
            await self._idle.wait()

    @property
    def running(self) -> int:
        """How many turns are being answered."""
        return len(self._attempts)

    # Taking turns

    def offer(self) -> Desk | None:
        """A desk for one more turn, or None when all are taken; `take` follows each offer."""
        if self._draining or len(self._attempts) + self._offered >= self._concurrency:
            return None
        self._offered += 1
        return self._desk

    def take(self, claim: Claim | None) -> None:
        """The end of an offer: run the claimed turn, if there is one."""
        self._offered -= 1
        if claim is not None:
            self._begin(claim)
        self._free()

    def _free(self) -> None:
        self._idle.set()
        if self._backlog:
            self._wake.set()

    def _begin(self, claim: Claim) -> None:
        attempt = Attempt(self, claim, self._keeper.take(claim))
        self._attempts[claim.token] = attempt
        telemetry.RUNNING.inc()
        attempt.start()

    async def _claim_forever(self) -> None:
        while not self._draining:
            free = self._concurrency - len(self._attempts) - self._offered
            self._wake.clear()
            if free > 0:
                await self._claim(free)
            else:
                self._backlog = True
            if self._backlog and len(self._attempts) + self._offered < self._concurrency:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()

    async def _claim(self, free: int) -> None:
        self._offered += free
        claims: list[Claim] = []
        try:
            claims = await self.store.claim(self._desk, free)
            self._backlog = len(claims) == free
        except StoreUnavailable as error:
            self._backlog = False
            log.warning("cannot claim turns: %s", error)
        except Exception:
            self._backlog = False
            log.exception("cannot claim turns")
        finally:
            self._offered -= free
        for claim in claims:
            self._begin(claim)
        self._idle.set()

    def _hear(self, notice: Notice) -> None:
        if isinstance(notice, Ready):
            self._wake.set()
        elif isinstance(notice, Signal):
            for attempt in list(self._attempts.values()):
                if attempt.claim.session == notice.session:
                    attempt.hear(notice)

    # Leases

    async def _renew_forever(self) -> None:
        """Renew every third of a lease, and stop in time what could not be renewed."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(min(1.0, self.lease / 10))
            now = time.monotonic()
            attempts = list(self._attempts.values())
            for attempt in attempts:
                if attempt.good_until < now:
                    attempt.stop("lost")
            if attempts and now - renewed >= self.lease / 3:
                renewed = now
                # Beside this loop: a store that hangs must not keep it from stopping attempts.
                self._beside(self._renew(attempts))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a small task of the worker's own until it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _renew(self, attempts: list[Attempt]) -> None:
        asked = time.monotonic()
        try:
            renewal = await self.store.renew([a.claim for a in attempts], self.lease)
        except StoreUnavailable as error:
            log.warning("cannot renew leases: %s", error)
            return  # each attempt's own deadline stops it in time
        for attempt in attempts:
            if attempt.claim.token in renewal.lost:
                attempt.stop("lost")
                continue
            attempt.good_until = asked + self.lease * (1 - MARGIN)
            if attempt.claim.token in renewal.cancelled:
                attempt.stop("cancel")

    # What an attempt asks of its worker

    def check(self, attempt: Attempt) -> None:
        """Ask the store whether an attempt's claim is still held."""
        self._beside(self._renew([attempt]))

    def span(self, claim: Claim) -> AbstractContextManager[Any]:
        """The span of an attempt, where somebody traces."""
        if not self._traced:
            return telemetry.NO_SPAN
        return telemetry.span("turn", session=claim.session, turn=claim.turn)

    def next_desk(self) -> Desk | None:
        """The desk at which a session's next turn goes on at once, unless others are waiting."""
        return None if self._draining or self._backlog else self._desk

    def ended(self, attempt: Attempt, said: Sequence[bytes], next_claim: Claim | None) -> None:
        """An attempt is over; its place goes to the session's next turn or is free."""
        claim = attempt.claim
        self._attempts.pop(claim.token, None)
        telemetry.RUNNING.dec()
        self._keeper.give_back(claim.session, attempt.kept, said, claim.seq + len(said))
        if next_claim is not None:
            self._begin(next_claim)
        dropped = self._keeper.shrink()
        if dropped:
            self._beside(self._forget(dropped))
        self._free()

    async def _forget(self, sessions: list[str]) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self.store.forget(self.name, sessions)


class Attempt:
    """One attempt at one turn: its task, its output, and what may stop it."""

    def __init__(self, worker: Worker, claim: Claim, kept: Kept) -> None:
        self.claim = claim
        self._worker = worker
        self.kept = kept
        options = worker.options
        self._output = Output(
            claim.turn,
            claim.attempt,
            self._write,
            coalesce=options.coalesce,
            limit=options.max_reply,
        )
        self._stopped: Stop | None = None
        self._over = False
        self._began = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self.good_until = self._began + worker.lease * (1 - MARGIN)
        """Until when, on the monotonic clock, the lease cannot have run out."""

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        timeout = self._worker.options.timeout
        self._timers.append(loop.call_later(timeout, self.stop, "timeout"))
        # A context of its own: the submitting request's variables must not leak into the turn.
        self._task = loop.create_task(self._run(), context=contextvars.Context())

    # What may stop it

    def hear(self, signal: Signal) -> None:
        """Someone cancelled this turn, or took the session away."""
        if signal.kind == "cancel" and signal.turn == self.claim.turn:
            self.stop("cancel")
        elif signal.kind == "lost" and signal.turn == self.claim.turn:
            self.stop("lost")
        elif signal.kind == "gone":  # this session, or an earlier one of its name
            self._worker.check(self)

    def stop(self, why: Stop) -> None:
        """Cancel the handler; if it has not ended after a moment, go on without it."""
        if self._stopped is not None or self._over or self._task is None:
            return
        self._stopped = why
        self._output.close()
        self._task.cancel()
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(STOP_PATIENCE, self._abandon))

    def _abandon(self) -> None:
        if not self._over:
            log.warning(
                "session %s turn %d: the handler does not stop; going on without it",
                telemetry.short(self.claim.session),
                self.claim.turn,
            )
            self._over = True
            self._worker_task(self._end(None))

    def _worker_task(self, work: Any) -> None:
        self._task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())

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
            return  # it was abandoned; whoever went on has ended the turn
        await self._end(turn, error)

    async def _turn(self) -> Turn:
        claim = self.claim
        if self.kept.history is None:  # dropped between the claim and now
            limit = self._worker.earlier
            found = await self._worker.store.history(
                claim.session, before=claim.seq + 1, limit=limit
            )
            self.kept.fill(found.messages)
        message = Message.decode(claim.message)
        message.turn = claim.turn
        return Turn(
            TurnSession(claim.session, claim.name, orjson.loads(claim.metadata)),
            claim.turn,
            claim.attempt,
            message,
            state=orjson.loads(claim.state),
            local=self.kept.local,
            history=tuple(self.kept.history or ()),
            tools=self,
        )

    async def _end(self, turn: Turn | None, error: BaseException | None = None) -> None:
        """Commit what came of the attempt, and let go."""
        self._over = True
        for timer in self._timers:
            timer.cancel()
        self.kept.leave_hung_thread(self._stopped == "timeout")
        said: list[bytes] = []
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
        """Let go of what points back here, so that it is freed now and not by a collector."""
        self._timers.clear()
        self._output.untie()
        self._task = None

    async def _commit(self, outcome: Outcome) -> Claim | None:
        """Finish the turn; while the store is away, try again as long as the lease is good."""
        until = self._began + self._worker.options.timeout + self._worker.lease
        while True:
            try:
                return await self._worker.store.finish(self.claim, outcome)
            except StoreUnavailable:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)

    def _said(self, outcome: Outcome) -> list[bytes]:
        bodies = [self.claim.message, *outcome.replies]
        first = self.claim.seq + 1
        return [placed(body, self.claim.turn, first + i) for i, body in enumerate(bodies)]

    def _outcome(self, turn: Turn | None, error: BaseException | None) -> Outcome | None:
        """How the attempt ended, or None when that is not ours to say."""
        error = error or self._output.failure
        if isinstance(error, ClaimLost) or self._stopped in ("lost", "release"):
            return None
        if self._stopped == "timeout":
            return self._failed(TIMED_OUT)
        try:
            if self._stopped == "cancel":
                return self._ended("cancelled", replies=self._encoded(partial=True))
            if error is None and turn is not None:
                return self._completed(turn)
        except Exception as bad:  # what was said cannot be committed as it is
            if self._stopped == "cancel":
                return self._ended("cancelled")
            error = bad
        return self._failed(self._explained(error))

    def _explained(self, error: BaseException | None) -> dict[str, Any]:
        """What people are told of an error: a TurnError's own words, of others nothing."""
        if isinstance(error, TurnError):
            log.info("session %s turn %d failed: %s", *self._where(), error.error_code)
            body = {"code": error.error_code, "message": error.message}
            return {**body, "retryable": error.may_retry}
        log.error("session %s turn %d: the handler failed: %s", *self._where(), _trace(error))
        return FAILED

    def _failed(self, error: dict[str, Any]) -> Outcome:
        return self._ended("failed", error=error)

    def _ended(self, status: Ending, **more: Any) -> Outcome:
        return Outcome(
            status,
            drafts=self._output.rest(),
            next_desk=self._worker.next_desk(),
            keep=self._worker.name if self.kept.sticky else None,
            **more,
        )

    def _completed(self, turn: Turn) -> Outcome:
        try:
            state = orjson.dumps(turn.state)
            usage = orjson.dumps(turn.usage) if turn.usage is not None else None
        except (TypeError, ValueError) as bad:
            raise TurnError("The session's state is not JSON.", code="bad_state") from bad
        changed = None if state == self.claim.state else state
        return self._ended("completed", replies=self._encoded(), state=changed, usage=usage)

    def _encoded(self, *, partial: bool = False) -> list[bytes]:
        try:
            return [message.encode() for message in self._output.messages(partial=partial)]
        except (TypeError, ValueError, AttributeError) as bad:
            raise TurnError("A reply's message is not JSON.", code="bad_reply") from bad

    async def _write(self, drafts: Sequence[Draft]) -> None:
        """Append deltas. A store that is away delays them; a lost claim ends the attempt."""
        while True:
            try:
                stop = await self._worker.store.append(self.claim, drafts)
                break
            except ClaimLost:
                self.stop("lost")
                raise
            except StoreUnavailable:
                if self._over or self._stopped is not None:
                    raise  # the commit carries them
                await asyncio.sleep(0.2)
        if stop:
            self.stop("cancel")

    def _where(self) -> tuple[str, int]:
        return telemetry.short(self.claim.session), self.claim.turn

    def _measure(self, outcome: str) -> None:
        telemetry.turn_ended(
            outcome,
            queued=max(0.0, time.time() - self.claim.queued_at - (time.monotonic() - self._began)),
            took=time.monotonic() - self._began,
            first=self._output.first_delta and self._output.first_delta - self._began,
        )

    # What the turn may ask (see turn.Tools)

    async def say(self, piece: str | Message) -> None:
        await self._output.say(piece)

    async def emit(self, name: str, data: Any) -> None:
        await self._output.emit(name, data)

    async def history(self, before: int | None, limit: int) -> list[Message]:
        last = self.claim.seq + 1 if before is None else before
        found = await self._worker.store.history(self.claim.session, before=last, limit=limit)
        return [Message.decode(message) for message in found.messages]

    def in_thread(self, fn: Callable[..., T], *args: Any) -> Awaitable[T]:
        if self.kept.thread is None:
            self.kept.thread = SessionThread(f"turnwise-{telemetry.short(self.claim.session)}")
        return self.kept.thread.run(fn, *args)


def _trace(error: BaseException | None) -> str:
    """Where an exception came from. Its own words may quote a message, so they are left out."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    path = "".join(f"\n    {f.filename}:{f.lineno} in {f.name}" for f in frames)
    return f"{type(error).__name__}{path}"
