"""A store by the rules: every method of `Store`, over a few ways to run a rule.

What differs between stores is beneath it: how a rule is run on one session (`_act`, `_read`), and
how sessions are found that are ready, lapsed or expired.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from turnwise.conversation import Session, Status, TurnRecord
from turnwise.conversation.events import Draft
from turnwise.errors import ClaimLost, NotFound
from turnwise.identity import bits, operation
from turnwise.stores import rules
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim, Desk, Outcome, Renewal
from turnwise.stores.records import (
    Creation,
    Delivery,
    FileRecord,
    History,
    Log,
    Submission,
    Submitted,
    Timer,
)
from turnwise.stores.rows import Remembered
from turnwise.stores.rules import Op, Rule
from turnwise.stores.rules.moving import SLICE
from turnwise.stores.skipping import skip
from turnwise.stores.whole import Whole

Make = Callable[[Op], Rule]
"""Makes an act anew for each try: its last argument is the operation."""
Settled = Callable[[Any], None]
PAUSE = 0.05
"""Seconds, at most, before a session is put once more."""


class RuledStore(Store):
    """Every act by its rule."""

    @abstractmethod
    def _begin(
        self,
        session: str,
        make: Make,
        operation: str | None = None,
        settled: Settled | None = None,
    ) -> asyncio.Future[Any]:
        """Run an act on a session until it is committed; the future is its answer.

        `settled` is called once: with the answer after the commit, even if the caller has given up,
        or with None if the act failed or never began.
        """

    @abstractmethod
    async def _read(self, session: str, make: Callable[[], Rule]) -> Any:
        """Run a reading on a session, as one snapshot; returns its answer."""

    async def _expire(
        self,
        due: Callable[[], Awaitable[Sequence[str]]],
        missing: Callable[[str], Awaitable[None]] | None = None,
    ) -> int:
        """Delete all sessions that are `due`, a page at a time; returns how many.

        One that cannot be read stays, and holds up no other. `missing` is called for one that was
        found and does not exist.
        """
        deleted = 0
        while names := await due():
            acts = (self._begin(name, partial(rules.expire, name)) for name in names)
            ended = await asyncio.gather(*acts, return_exceptions=True)
            stuck = 0
            for name, answer in zip(names, ended, strict=True):
                if isinstance(answer, BaseException):
                    skip(name, answer)
                    stuck += 1
                elif answer is None and missing is not None:
                    await missing(name)
                    deleted += 1
                else:
                    deleted += bool(answer)
            if stuck == len(names):
                break
        return deleted

    # Sessions

    async def create(self, session: str, **wish: Any) -> Session:
        made: Session = await self._begin(session, partial(rules.create, session, Creation(**wish)))
        return made

    async def own(self, session: str, owner: str) -> Session:
        found: Session = await self._begin(session, partial(rules.own, session, owner))
        return found

    async def fork(self, session: str, at: int | None, fresh: str, name: str | None) -> Session:
        copy: Whole = await self._read(session, partial(rules.fork, session, at, fresh, name))
        await self.put(copy)
        found = await self.session(fresh)
        if found is None:
            raise NotFound("This session does not exist.")
        return found

    async def session(self, session: str) -> Session | None:
        found: Session | None = await self._read(session, partial(rules.view, session))
        return found

    async def update(self, session: str, changes: Mapping[str, Any]) -> Session:
        found: Session = await self._begin(session, partial(rules.update, session, changes))
        return found

    async def rotate(self, session: str) -> int:
        generation: int = await self._begin(session, partial(rules.rotate, session))
        return generation

    async def reset(self, session: str) -> Session:
        found: Session = await self._begin(session, partial(rules.reset, session))
        return found

    async def delete(self, session: str) -> bool:
        existed: bool = await self._begin(session, partial(rules.delete, session))
        return existed

    async def whole(self, session: str) -> Whole | None:
        found: Whole | None = await self._read(session, partial(rules.whole, session))
        return found

    async def put(self, moved: Whole) -> bool:
        done: bool | None = None
        pause = PAUSE
        while done is None:  # a sweep, or who puts the same, has removed a part: begin again
            before = ""
            for start in range(0, max(1, len(moved.entries)), SLICE):
                name = operation()
                make = partial(rules.put, moved, start, before)
                done, before = await self._begin(moved.session, make, name), name
                if not done:
                    break
            if done is None:  # two that put the same at once must not go on disturbing each other
                await asyncio.sleep(pause * bits(16) / 2**16)
                pause *= 2
        return done

    # Turns

    async def submit(
        self,
        submission: Submission,
        desk: Desk | None = None,
        take: Callable[[Claim | None], None] | None = None,
    ) -> Submitted:
        make = partial(rules.submit, submission, desk)
        settled = None if take is None else _HandingOver(take)
        submitted: Submitted = (await self._begin(submission.session, make, None, settled))[0]
        return submitted

    async def schedule(self, submission: Submission, at: float) -> Timer | None:
        make = partial(rules.schedule, submission, at)
        timer: Timer | None = await self._begin(submission.session, make)
        return timer

    async def unschedule(self, session: str, key: str) -> bool:
        existed: bool = await self._begin(session, partial(rules.unschedule, session, key))
        return existed

    async def timers(self, session: str) -> list[Timer]:
        found: list[Timer] = await self._read(session, partial(rules.timers, session))
        return found

    async def append(self, claim: Claim, drafts: Sequence[Draft]) -> bool:
        make = partial(rules.append, claim, drafts, claim.written)
        stop: bool = await self._begin(claim.session, make)
        claim.written += len(drafts)
        return stop

    async def finish(self, claim: Claim, outcome: Outcome) -> Claim | None:
        make = partial(rules.finish, claim, outcome)
        following: Claim | None = await self._begin(claim.session, make, outcome.operation)
        return following

    async def release(self, claim: Claim) -> None:
        await self._begin(claim.session, partial(rules.release, claim))

    async def renew(self, claims: Sequence[Claim], lease: float) -> Renewal:
        renewing = (self._begin(c.session, partial(rules.renew, c, lease)) for c in claims)
        answers = await asyncio.gather(*renewing, return_exceptions=True)
        lost, cancelled, unknown = set(), set(), set()
        for claim, answer in zip(claims, answers, strict=True):
            if isinstance(answer, ClaimLost):
                lost.add(claim.token)
            elif isinstance(answer, BaseException):
                unknown.add(claim.token)
            elif answer:
                cancelled.add(claim.token)
        if claims and len(unknown) == len(claims):
            raise next(a for a in answers if isinstance(a, BaseException))
        return Renewal(frozenset(lost), frozenset(cancelled), frozenset(unknown))

    async def hold(self, session: str, owner: str, lease: float) -> Claim | None:
        claim: Claim | None = await self._begin(session, partial(rules.hold, session, owner, lease))
        return claim

    async def save(self, claim: Claim, state: bytes | None) -> None:
        await self._begin(claim.session, partial(rules.save, claim, state))

    async def remember(
        self,
        claim: Claim,
        entries: Sequence[bytes],
        limit: int,
        *,
        operation: str | None = None,
        again: bool = False,
    ) -> int:
        make = partial(rules.remember, claim, entries, limit, again)
        last: int = await self._begin(claim.session, make, operation)
        return last

    async def forget_memory(self, claim: Claim, before: int) -> int:
        make = partial(rules.forget_memory, claim, before)
        base: int = await self._begin(claim.session, make)
        return base

    async def memory(
        self, session: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Remembered]:
        make = partial(rules.memory, session, after, limit)
        found: Sequence[Remembered] = await self._read(session, make)
        return found

    async def forget(self, worker: str, sessions: Sequence[str]) -> None:
        make = partial(rules.forget, worker)
        await asyncio.gather(*(self._begin(session, make) for session in sessions))

    async def cancel(self, session: str, turn: int) -> TurnRecord:
        record: TurnRecord = await self._begin(session, partial(rules.cancel, session, turn))
        return record

    async def stop(self, session: str, key: str | None = None) -> list[TurnRecord]:
        records: list[TurnRecord] = await self._begin(session, partial(rules.stop, session, key))
        return records

    async def change(self, session: str, turn: int, text: str) -> TurnRecord:
        make = partial(rules.change, session, turn, text)
        record: TurnRecord = await self._begin(session, make)
        return record

    async def judge(self, session: str, message: str, feedback: Mapping[str, Any]) -> None:
        await self._begin(session, partial(rules.judge, session, message, feedback))

    # Messengers

    async def deliver(self, session: str, channel: str, by: str, lease: float) -> Delivery | None:
        make = partial(rules.deliver, session, channel, by, lease)
        found: Delivery | None = await self._begin(session, make)
        return found

    async def delivered(
        self, session: str, by: str, lease: float, n: int, pieces: list[Any], over: bool
    ) -> Delivery:
        make = partial(rules.delivered, session, by, lease, n, pieces, over)
        found: Delivery = await self._begin(session, make)
        return found

    async def leave(self, session: str, by: str) -> None:
        await self._begin(session, partial(rules.leave, session, by))

    async def turn_down(
        self, session: str, channel: str, id: str, why: str
    ) -> tuple[int, int, int] | None:
        make = partial(rules.turn_down, session, channel, id, why)
        found: tuple[int, int, int] | None = await self._begin(session, make)
        return found

    async def readdress(self, session: str, channel: str, to: Any) -> None:
        await self._begin(session, partial(rules.readdress, session, channel, to))

    # Files

    async def attach(self, session: str, file: FileRecord, limit: int) -> None:
        await self._begin(session, partial(rules.attach, session, file, limit))

    async def files(self, session: str) -> Mapping[str, FileRecord] | None:
        make = partial(rules.files, session)
        found: Mapping[str, FileRecord] | None = await self._read(session, make)
        return found

    async def forget_files(self, session: str, before: float) -> list[str]:
        gone: list[str] = await self._begin(session, partial(rules.forget_files, session, before))
        return gone

    # Reading

    async def turn(self, session: str, n: int) -> TurnRecord | None:
        record: TurnRecord | None = await self._read(session, partial(rules.turn, session, n))
        return record

    async def turn_by_key(self, session: str, key: str) -> TurnRecord | None:
        make = partial(rules.turn, session, None, key)
        record: TurnRecord | None = await self._read(session, make)
        return record

    async def turns(
        self,
        session: str,
        *,
        status: Status | None,
        before: int | None,
        after: int | None,
        limit: int,
        superseded: bool = False,
    ) -> tuple[list[TurnRecord], bool]:
        make = partial(rules.turns, session, status, before, after, limit, superseded)
        page: tuple[list[TurnRecord], bool] = await self._read(session, make)
        return page

    async def history(
        self,
        session: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
        superseded: bool = False,
    ) -> History:
        make = partial(rules.history, session, before, after, limit, superseded)
        return History(*await self._read(session, make))

    async def state(self, session: str) -> bytes:
        found: bytes = await self._read(session, partial(rules.state, session))
        return found

    async def log(
        self,
        session: str,
        after: int,
        *,
        limit: int = 500,
        turn: int | None = None,
        tag: str = "",
    ) -> Log | None:
        found = await self._read(session, partial(rules.log, session, after, limit, turn, tag))
        return None if found is None else Log(*found)


class _HandingOver:
    """Gives a submission's claim to the worker, even if the caller was cancelled."""

    def __init__(self, take: Callable[[Claim | None], None]) -> None:
        self._take = take

    def __call__(self, answer: Any) -> None:
        self._take(None if answer is None else answer[1])
