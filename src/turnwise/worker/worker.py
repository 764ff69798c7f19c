"""Worker: claims turns, runs the bot's handler, writes the log, commits, releases.

Its rules:

1. Each write names its claim, and a refusal (ClaimLost) ends the attempt at once.
2. It renews all its leases in one call; if that fails, it stops by its own monotonic clock
   before the leases can have expired, so it never runs a turn beside its successor for long.
3. A handler that does not stop is abandoned: its turn ends, and its later output is discarded.
4. A wake-up is a hint. The worker also looks for work every half second.
5. On `drain` it takes no new turns, gives running turns a grace, and releases the others.

It does not depend on channels, gateway or bot: it only calls `answer(turn)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from turnwise import telemetry
from turnwise.errors import StoreUnavailable
from turnwise.files import FileStore
from turnwise.media import Media
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim, Desk
from turnwise.stores.notices import Notice, Ready, Signal
from turnwise.turn import Options
from turnwise.worker.attempt import MARGIN, STOP_PATIENCE, Answer, Attempt
from turnwise.worker.session_cache import SessionCache

T = TypeVar("T")
log = logging.getLogger("turnwise.worker")

EARLY = 5.0
"""Seconds that a signal is kept for an attempt that has not started."""
LOOK = 0.5
"""Seconds between two checks for work that was not announced."""


class Worker:
    """Answers turns with `answer`, up to `concurrency` at a time, and `owner_limit` of one owner in
    all processes; a lease is `lease` seconds."""

    def __init__(
        self,
        store: Store,
        answer: Answer,
        options: Options,
        *,
        concurrency: int = 100,
        lease: float = 30.0,
        name: str | None = None,
        debug: bool = False,
        owner_limit: int | None = None,
        files: FileStore | None = None,
        media: Media | None = None,
    ) -> None:
        self.debug = debug
        self.media = media
        self.files = files
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
        self._hurry = asyncio.Event()
        self._draining = False
        self._releasing = False
        self._early: dict[str, float] = {}
        self._traced = telemetry.traced()
        self._tasks: list[asyncio.Task[None]] = []
        self._unlisten: Callable[[], None] = lambda: None
        self.earlier = max(1, options.history - 1)  # the message itself is the last of them
        self.cache = SessionCache(history=options.history - 1)
        self._desk = Desk(
            self.name, lease, options.max_attempts, options.history - 1, self.cache.known,
            owner_limit,
        )  # fmt: skip

    # Life

    def start(self) -> None:
        """Start to take turns."""
        self._unlisten = self.store.listen(self._hear)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._claim_forever(), name="turnwise-claims"),
            loop.create_task(self._renew_forever(), name="turnwise-leases"),
        ]

    def retire(self) -> None:
        """Take no more turns; running ones continue."""
        self._draining = True
        self._wake.set()

    async def drain(self, grace: float) -> None:
        """Retire, give running turns `grace` seconds, release the others to their mailboxes."""
        self.retire()
        # A pending claim request completes; its turns are run or released, never left claimed.
        await asyncio.wait(self._tasks[:1], timeout=STOP_PATIENCE)
        if self._attempts:
            words = "finishing %d running turns, up to %g s; a second signal releases them now"
            log.warning(words, len(self._attempts), grace)
        idle = asyncio.ensure_future(self._until_idle())
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({idle, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        hurry.cancel()
        self._releasing = True
        for attempt in list(self._attempts.values()):
            attempt.stop("release")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_PATIENCE + 1.0):
                await self._until_idle()
        self._tasks[1].cancel()
        await asyncio.wait(self._tasks, timeout=STOP_PATIENCE)
        self._unlisten()
        with contextlib.suppress(StoreUnavailable):
            await self.store.forget(self.name, self.cache.sticky())
        self.cache.close()

    def hurry(self) -> None:
        """Cut the grace of a drain short."""
        self._hurry.set()

    async def _until_idle(self) -> None:
        while self._attempts or self._offered:
            self._idle.clear()
            await self._idle.wait()

    @property
    def running(self) -> int:
        """The number of turns that are being answered."""
        return len(self._attempts)

    def whose(self, task: asyncio.Task[Any] | None) -> str:
        """A description of the turn that a task works on."""
        for attempt in list(self._attempts.values()):
            if task is not None and attempt.task is task:
                session = telemetry.named(attempt.claim.session)
                return f"session {session} turn {attempt.claim.turn}"
        return "code outside of any turn" if task is None else f"task {task.get_name()!r}"

    # Taking turns

    def offer(self) -> Desk | None:
        """A desk for one more turn, or None if no slot is free; `take` follows each offer."""
        full = len(self._attempts) + self._offered >= self._concurrency
        if self._draining or self._backlog or full:  # those that wait go first
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
        if self._releasing:  # it arrived after all others were released
            self._beside(self._hand_back(claim))
            return
        attempt = Attempt(self, claim, self.cache.take(claim))
        self._attempts[claim.token] = attempt
        attempt.start()
        if self._early.pop(claim.session, None) is not None:
            self.check(attempt)

    async def _claim_forever(self) -> None:
        while not self._draining:
            free = self._concurrency - len(self._attempts) - self._offered
            self._wake.clear()
            if free > 0:
                # Half of the slots stay free for turns that are submitted here.
                await self._claim(max(1, free // 2))
            else:
                self._backlog = True
            if self._backlog and len(self._attempts) + self._offered < self._concurrency:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wake.wait()

    async def _claim(self, limit: int) -> None:
        self._offered += limit
        claims: list[Claim] = []
        try:
            claims = await self.store.claim(self._desk, limit)
            self._backlog = len(claims) == limit
        except StoreUnavailable as error:
            self._backlog = False
            log.warning("cannot claim turns: %s", error)
        except Exception:
            self._backlog = False
            log.exception("cannot claim turns")
        finally:
            self._offered -= limit
        for claim in claims:
            self._begin(claim)
        self._idle.set()

    def _hear(self, notice: Notice) -> None:
        if isinstance(notice, Ready):
            if notice.delay:
                asyncio.get_running_loop().call_later(notice.delay, self._wake.set)
            else:
                self._wake.set()
        elif isinstance(notice, Signal):
            # It may concern an attempt that has not started yet: its claim is still arriving.
            self._early = {s: at for s, at in self._early.items() if at > time.monotonic() - EARLY}
            self._early[notice.session] = time.monotonic()
            for attempt in list(self._attempts.values()):
                if attempt.claim.session == notice.session:
                    attempt.hear(notice)

    # Leases

    async def _renew_forever(self) -> None:
        """Renew every third of a lease; stop attempts that lost it or take too long."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(min(1.0, self.lease / 10, self.options.timeout / 10))
            now = time.monotonic()
            attempts = list(self._attempts.values())
            for attempt in attempts:
                if attempt.good_until < now:
                    attempt.stop("lost")
                elif attempt.began + self.options.timeout < now:
                    attempt.stop("timeout")
            if attempts and now - renewed >= self.lease / 3:
                renewed = now
                # In a separate task: a hanging store must not prevent stopping attempts.
                self._beside(self._renew(attempts))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run an internal task of the worker until it is done."""
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
            if attempt.claim.token in renewal.unknown:
                continue  # its own deadline stops it in time
            if attempt.claim.token in renewal.lost:
                attempt.stop("lost")
                continue
            attempt.good_until = asked + self.lease * (1 - MARGIN)
            if attempt.claim.token in renewal.cancelled:
                attempt.stop("cancel")

    # Called by attempts

    def check(self, attempt: Attempt) -> None:
        """Ask the store whether an attempt's claim is still held."""
        self._beside(self._renew([attempt]))

    def span(self, claim: Claim) -> AbstractContextManager[Any]:
        """The span of an attempt, if tracing is enabled."""
        if not self._traced:
            return telemetry.NO_SPAN
        return telemetry.span("turn", session=claim.session, turn=claim.turn)

    def next_desk(self) -> Desk | None:
        """The desk for the session's next turn, or None if other sessions are waiting."""
        return None if self._draining or self._backlog else self._desk

    def ended(self, attempt: Attempt, said: Sequence[bytes], next_claim: Claim | None) -> None:
        """An attempt is over; its slot goes to the session's next turn or becomes free."""
        claim = attempt.claim
        self._attempts.pop(claim.token, None)
        self.cache.give_back(claim.session, attempt.kept, said, claim.seq + len(said))
        if next_claim is not None:
            self._begin(next_claim)
        dropped = self.cache.shrink()
        if dropped:
            self._beside(self._forget(dropped))
        if self._desk.owner_limit is not None and claim.owner is not None:
            self._wake.set()  # another turn of the same owner may run now
        self._free()

    async def _hand_back(self, claim: Claim) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self.store.release(claim)

    async def _forget(self, sessions: list[str]) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self.store.forget(self.name, sessions)
