"""Remote: runs acts on data that is in a server, which other processes change as well.

An act is computed from a header that was read, and committed only if the header is still that one;
otherwise the act is run anew. Acts of this process on one session stand in line. The holder
of a session's claim has written its header last, so its acts begin with that one.

If an answer is lost, the act may have been done: its repetition first looks for what it would have
written (`Op.since`). An act that is given up may still arrive, so its session is fenced afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from turnwise.errors import StoreUnavailable
from turnwise.identity import operation
from turnwise.stores import rules
from turnwise.stores.claim import Claim, Desk
from turnwise.stores.driver import Attempt, Driver, Lost
from turnwise.stores.notices import Appended, Ended, Listeners, Moved, Notice, Ready
from turnwise.stores.ruled import Make, RuledStore, Settled
from turnwise.stores.rules import Changes, Op, Rule
from turnwise.stores.skipping import about_one, skip

log = logging.getLogger("turnwise.store")

PATIENCE = 1.4
"""Seconds without an answer until a caller gets StoreUnavailable."""
BRIEF = 0.4
"""The same while the server is known to be unavailable."""
PAUSE = 0.05
"""Seconds between two attempts to reach the server."""
BACKOFF = 0.0005
"""Seconds that an act waits after its second conflict; twice as long after each further one."""
FENCE = 60.0
"""Seconds during which a session is fenced after an act was given up."""
KEPT = 10_000
"""Headers that are kept, so that they need not be read."""
AGAIN = 4
"""How often a reading that asks twice is tried anew, before it is made on a snapshot."""


class RemoteStore(RuledStore):
    """A store by the rules, over a driver."""

    driver: Driver

    def __init__(self) -> None:
        self.listeners = Listeners()
        self._lines: dict[str, _Line] = {}
        self._kept: dict[str, bytes] = {}
        self._fences: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._away = False

    async def finish_tasks(self) -> None:
        """Wait until the pending acts are done."""
        for fence in self._fences.values():
            fence.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def listen(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        return self.listeners.add(listener)

    # Acts

    def _begin(
        self,
        session: str,
        make: Make,
        operation: str | None = None,
        settled: Settled | None = None,
    ) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        try:
            self._spawn(self._perform(session, make, operation, settled, future))
        except BaseException:
            if settled is not None:
                settled(None)
            raise
        return future

    async def _perform(
        self,
        session: str,
        make: Make,
        name: str | None,
        settled: Settled | None,
        future: asyncio.Future[Any],
    ) -> None:
        """Act, and notify the caller, if it still waits."""
        answer = None
        try:
            answer = await self._act(session, make, name or operation())
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        finally:
            if settled is not None:
                settled(answer)
        if not future.done():
            future.set_result(answer)

    async def _act(self, session: str, make: Make, name: str) -> Any:
        line = self._lines.setdefault(session, _Line())
        line.acts += 1
        try:
            async with line.lock:
                return await self._insist(session, make, name)
        finally:
            line.acts -= 1
            if not line.acts:
                del self._lines[session]

    async def _insist(self, session: str, make: Make, name: str) -> Any:
        """Try until the act is committed, refused, or `PATIENCE` is over."""
        # If it was given up before, this repetition finds out what became of it.
        fence = self._fences.pop((session, name), None)
        if fence is not None:
            fence.cancel()
        until = time.monotonic() + (BRIEF if self._away else PATIENCE)
        kept, since, sent, conflicts = self._kept.get(session), None, False, 0
        while True:
            attempt = Attempt(self.driver, session, kept)
            op = Op(name, self.driver.origin, since, self.driver.incarnation)
            committing = False
            try:
                changes = await attempt.run(make(op))
                committing = True
                if changes is not None and changes.header is None:
                    self._away = False
                    if since is not None:  # it was done, and nobody was told
                        await self.driver.confirm(session)
                        self.told_nobody(session)
                    return changes.answer
                if changes is not None and await attempt.commit(changes):
                    self._away = False
                    self._committed(session, changes, attempt.body)
                    return changes.answer
            except Lost as error:
                if committing and error.sent:  # a reading that was lost has done nothing
                    sent = True
                    since = attempt.events if since is None else since
                if time.monotonic() + PAUSE > until:
                    self._give_up(session, name, sent, error)
                await asyncio.sleep(PAUSE)
            finally:
                attempt.over()
            # What was kept here is old: read it.
            kept = None
            self._kept.pop(session, None)
            conflicts += 1
            # The holder of the claim tries again at once, because readers wait for its words.
            if conflicts > 1 and attempt.origin != self.driver.origin:
                await asyncio.sleep(random.random() * BACKOFF * min(2**conflicts, 64))

    def _committed(self, session: str, changes: Changes, body: bytes) -> None:
        header = changes.header
        assert header is not None
        self._kept.pop(session, None)
        # The holder of a claim, and the process that has ended a turn, are likely to write next.
        ours = header.origin == self.driver.origin or (changes.ended and header.token is None)
        if ours and not changes.delete:
            self._kept[session] = body
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        self._tell(session, changes)
        if changes.forgotten is not None:
            self._spawn(self._clean(session, changes.forgotten))

    async def _clean(self, session: str, upto: int) -> None:
        with suppress(Lost):  # the next time removes these as well
            await self.driver.forget_memory(session, upto)

    def _tell(self, session: str, changes: Changes) -> None:
        notices: list[Notice] = []
        if changes.ended is not None:
            notices.append(Ended(session, changes.ended))
        if changes.entries:
            notices.append(Appended(session, changes.entries))
        self.listeners.tell([*notices, *changes.notices])

    def told_nobody(self, session: str) -> None:
        """An act was done and its answer was lost: those who follow must look for themselves."""
        self.listeners.tell([Moved(session), Ready()])

    def _give_up(self, session: str, name: str, sent: bool, error: Lost) -> None:
        if not self._away:
            log.warning("the store does not answer: %s", error)
        self._away = True
        self._kept.pop(session, None)
        if sent:
            self._fences[session, name] = self._spawn(self._fence(session, name))
        unavailable = StoreUnavailable(f"The store does not answer: {error}")
        unavailable.perhaps_done = sent
        raise unavailable from error

    async def _fence(self, session: str, name: str) -> None:
        """An act was given up, and may still arrive: give back a claim that it made, or move the
        session's version, so that it is refused."""
        until = time.monotonic() + FENCE
        try:
            while time.monotonic() < until:
                try:
                    await self._act(session, partial(rules.fence, name), operation())
                    return
                except StoreUnavailable:
                    await asyncio.sleep(0.5)
        except Exception:
            log.exception("cannot fence a session")
        finally:
            if self._fences.get((session, name)) is asyncio.current_task():
                del self._fences[session, name]

    # Readings

    async def _read(self, session: str, make: Callable[[], Rule]) -> Any:
        """Read from the server. A reading that asks twice may see two moments, so it is repeated
        if the header has changed in between."""
        until = time.monotonic() + (BRIEF if self._away else PATIENCE)
        tries = 0
        while True:
            try:
                if tries == AGAIN:
                    return await self.driver.at_one_moment(session, make)
                tries += 1
                changes = await Attempt(self.driver, session, None).run(make())
                self._away = False
                if changes is not None:
                    return changes.answer
            except Lost as error:
                await self._pause(until, error)

    async def ask(self, asked: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The result of a driver's method, which may be called again. Raises StoreUnavailable."""
        until = time.monotonic() + (BRIEF if self._away else PATIENCE)
        while True:
            try:
                found = await asked()
                self._away = False
                return found
            except Lost as error:
                await self._pause(until, error)

    async def _pause(self, until: float, error: Lost) -> None:
        """Before another try; raises StoreUnavailable if there is no time for one."""
        if time.monotonic() + PAUSE > until:
            if not self._away:
                log.warning("the store does not answer: %s", error)
            self._away = True
            raise StoreUnavailable(f"The store does not answer: {error}") from error
        await asyncio.sleep(PAUSE)

    # Finding work

    async def claim(self, desk: Desk, limit: int) -> list[Claim]:
        # A caller that gives up must not leave claims that no worker runs.
        return await asyncio.shield(self._spawn(self._claim(desk, limit)))

    async def _claim(self, desk: Desk, limit: int) -> list[Claim]:
        lapsed = await self.ask(self.driver.lapsed)
        lapsing = (self._begin(name, partial(rules.lapse, looked=True)) for name in lapsed)
        ended = await asyncio.gather(*lapsing, return_exceptions=True)
        for name, error in zip(lapsed, ended, strict=True):
            if isinstance(error, BaseException):
                skip(name, error)
        claims, refused = await self._claim_ready(desk, limit)
        if refused:  # those that were due are in the line now
            claims += (await self._claim_ready(desk, refused))[0]
        return claims

    async def _claim_ready(self, desk: Desk, limit: int) -> tuple[list[Claim], int]:
        """Claims on sessions that are ready, and how many of them could not be claimed."""
        ready = await self.ask(partial(self.driver.take, desk, limit))
        claiming = (self._begin(name, partial(rules.claim, name, desk)) for name in ready)
        found = await asyncio.gather(*claiming, return_exceptions=True)
        claims = [claim for claim in found if isinstance(claim, Claim)]
        for name, error in zip(ready, found, strict=True):
            # What was claimed is not given up because another session cannot be reached.
            if isinstance(error, BaseException) and (about_one(error) or not claims):
                skip(name, error)
        refused = [name for name, claim in zip(ready, found, strict=True) if claim is None]
        if refused:
            await self.ask(partial(self.driver.give_back, refused))
        return claims, len(refused)


class _Line:
    """The acts of this process on one session, one after another: two of them in one group of
    commits would both be computed from the same header."""

    __slots__ = ("acts", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.acts = 0
