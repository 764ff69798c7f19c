"""The SQLite store: one file, several processes, durable once acknowledged.

Each method is an act (acts.py) or a reading (readings.py), which engine.py
runs in a transaction.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from turnwise.batching import Batch
from turnwise.conversation import Session, Status, TurnRecord
from turnwise.conversation.events import Draft
from turnwise.stores.base import (
    Claim,
    Desk,
    History,
    Log,
    Outcome,
    Renewal,
    Store,
    Submission,
    Submitted,
)
from turnwise.stores.notices import Listener
from turnwise.stores.sqlite.acts import Acts
from turnwise.stores.sqlite.engine import Engine


class SQLiteStore(Store):
    """Sessions in one SQLite file at `path`; `clock` returns seconds since 1970.

    `observe` is called for each transaction.
    """

    durability = (
        "SQLite in WAL mode with synchronous=FULL: what was acknowledged survives the death of "
        "any process and a power cut."
    )

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        observe: Callable[[Batch], None] | None = None,
    ) -> None:
        # Resolve links: the lock file of live processes is beside the real file.
        self.path = Path(path).resolve()
        self._engine = Engine(self.path, clock=clock, observe=observe, settle=_settle)
        self._trim_from = 0

    # Life

    async def open(self) -> None:
        await self._engine.start()

    async def close(self) -> None:
        await self._engine.stop()

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._engine.listen(listener)

    def follow(self, session: str) -> None:
        self._engine.followed[session] += 1

    def unfollow(self, session: str) -> None:
        self._engine.followed[session] -= 1
        if self._engine.followed[session] <= 0:
            del self._engine.followed[session]

    # Sessions

    async def secret(self) -> bytes:
        fresh = secrets.token_bytes(32)
        return await self._engine.act(lambda acts: acts.fact("secret", fresh))

    async def sweep(self, *, retention: float, limit: int = 200) -> int:
        start = self._trim_from
        swept, self._trim_from = await self._engine.act(
            lambda acts: acts.sweep(retention, limit, start)
        )
        return swept

    async def ping(self) -> None:
        self._engine.read(lambda rows: rows.session(""))
        self._engine.check_space()
        await self._engine.act(lambda acts: acts.prove())

    async def waiting(self) -> int:
        return self._engine.read(lambda rows: rows.waiting(), together=False)

    async def facts(self) -> dict[str, str]:
        return {**await self._engine.facts(), "durability": self.durability}

    async def create(
        self, session: str, *, name: str | None, metadata: bytes, ttl: float
    ) -> Session:
        return await self._engine.act(lambda acts: acts.create(session, name, metadata, ttl))

    async def update(self, session: str, changes: Mapping[str, Any]) -> Session:
        return await self._engine.act(lambda acts: acts.update(session, changes))

    async def rotate(self, session: str) -> int:
        return await self._engine.act(lambda acts: acts.rotate(session))

    async def reset(self, session: str) -> Session:
        return await self._engine.act(lambda acts: acts.reset(session))

    async def delete(self, session: str) -> bool:
        return await self._engine.act(lambda acts: acts.delete(session))

    # Turns

    async def submit(
        self,
        submission: Submission,
        desk: Desk | None = None,
        take: Callable[[Claim | None], None] | None = None,
    ) -> Submitted:
        under_way = _Submission(submission, desk, take)
        try:
            future: asyncio.Future[Submitted] = self._engine.submit(under_way)
        except BaseException:  # another event loop, or closed: nothing was started
            under_way.hand_over(committed=False)
            raise
        future.add_done_callback(under_way.given_up)
        return await future

    async def claim(self, desk: Desk, limit: int) -> list[Claim]:
        # A caller that gives up must not leave claims that no worker runs.
        dead = self._engine.dead()
        return await asyncio.shield(self._engine.act(lambda acts: acts.claim(desk, limit, dead)))

    async def append(self, claim: Claim, drafts: Sequence[Draft]) -> bool:
        return await self._engine.act(lambda acts: acts.append(claim, drafts))

    async def finish(self, claim: Claim, outcome: Outcome) -> Claim | None:
        return await self._engine.act(lambda acts: acts.finish(claim, outcome))

    async def release(self, claim: Claim) -> None:
        await self._engine.act(lambda acts: acts.release(claim))

    async def renew(self, claims: Sequence[Claim], lease: float) -> Renewal:
        return await self._engine.act(lambda acts: acts.renew(claims, lease))

    async def hold(self, session: str, owner: str, lease: float) -> Claim | None:
        return await self._engine.act(lambda acts: acts.hold(session, owner, lease))

    async def save(self, claim: Claim, state: bytes | None) -> None:
        await self._engine.act(lambda acts: acts.save(claim, state))

    async def forget(self, worker: str, sessions: Sequence[str]) -> None:
        await self._engine.act(lambda acts: acts.forget(worker, sessions))

    async def cancel(self, session: str, turn: int) -> TurnRecord:
        return await self._engine.act(lambda acts: acts.cancel(session, turn))

    # Reading

    async def session(self, session: str) -> Session | None:
        return self._engine.read(lambda rows: rows.session(session), together=False)

    async def sessions(self, *, after: str = "", limit: int = 100) -> list[Session]:
        return self._engine.read(lambda rows: rows.sessions(after, limit))

    async def turn(self, session: str, n: int) -> TurnRecord | None:
        return self._engine.read(lambda rows: rows.turn(session, n), together=False)

    async def turn_by_key(self, session: str, key: str) -> TurnRecord | None:
        return self._engine.read(lambda rows: rows.turn_by_key(session, key), together=False)

    async def turns(
        self,
        session: str,
        *,
        status: Status | None,
        before: int | None,
        after: int | None,
        limit: int,
    ) -> tuple[list[TurnRecord], bool]:
        return self._engine.read(lambda rows: rows.turns(session, status, before, after, limit))

    async def history(
        self, session: str, *, before: int | None = None, after: int | None = None, limit: int = 50
    ) -> History:
        return self._engine.read(lambda rows: rows.history(session, before, after, limit))

    async def state(self, session: str) -> bytes:
        return self._engine.read(lambda rows: rows.state(session))

    async def log(
        self, session: str, after: int, *, limit: int = 500, turn: int | None = None
    ) -> Log | None:
        return self._engine.read(lambda rows: rows.log(session, after, limit, turn))


class _Submission:
    """A pending submission. Its claim goes to the worker even if the caller was cancelled."""

    def __init__(
        self, wish: Submission, desk: Desk | None, take: Callable[[Claim | None], None] | None
    ) -> None:
        self._wish = wish
        self._desk = desk
        self._take = take
        self._claim: Claim | None = None
        self._begun = False

    def __call__(self, acts: Acts) -> Submitted:
        self._begun = True
        # If the caller was cancelled while the batch waited, do not claim.
        desk = self._desk if self._take is not None else None
        submitted, self._claim = acts.submit(self._wish, desk)
        return submitted

    def hand_over(self, *, committed: bool) -> None:
        """Notify the worker once: with the claim after the commit, or that there is none."""
        take, self._take = self._take, None
        if take is not None:
            take(self._claim if committed else None)

    def given_up(self, future: asyncio.Future[Submitted]) -> None:
        """The future is done; if the act never started, nothing was claimed."""
        if not self._begun:
            self.hand_over(committed=False)


def _settle(act: Callable[[Acts], Any], result: Any) -> None:
    if isinstance(act, _Submission):
        act.hand_over(committed=isinstance(result, Submitted))
