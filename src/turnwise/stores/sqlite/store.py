"""The SQLite store: one file, several processes, durable once acknowledged.

Acts and readings are the rules' (stores/rules/), which engine.py runs in transactions.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from turnwise.batching import Batch
from turnwise.conversation import Session
from turnwise.identity import operation
from turnwise.stores import rules
from turnwise.stores.claim import Claim, Desk
from turnwise.stores.notices import Listener
from turnwise.stores.records import Busy, Place
from turnwise.stores.ruled import Make, RuledStore, Settled
from turnwise.stores.rules import Op, Rule
from turnwise.stores.sqlite.acts import SQLiteActs
from turnwise.stores.sqlite.engine import Engine
from turnwise.stores.steady_clock import SteadyClock

TRIM = 1000
"""Entries that one act of a sweep removes; other acts go between."""


class SQLiteStore(RuledStore):
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
        clock: Callable[[], float] | None = None,
        observe: Callable[[Batch], None] | None = None,
    ) -> None:
        # Resolve links: the lock file of live processes is beside the real file.
        self.path = Path(path).resolve()
        self._engine = Engine(
            self.path, clock=clock or SteadyClock(), observe=observe, settle=_settle
        )

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

    # Acts and readings

    def _begin(
        self,
        session: str,
        make: Make,
        operation: str | None = None,
        settled: Settled | None = None,
    ) -> asyncio.Future[Any]:
        act = _Act(session, make, operation, settled)
        try:
            future = self._engine.submit(act)
        except BaseException:  # another event loop, or closed: nothing was started
            act.settle(None)
            raise
        if settled is not None:
            future.add_done_callback(act.given_up)
        return future

    async def _read(self, session: str, make: Callable[[], Rule]) -> Any:
        return self._engine.read(lambda rows: rows.run(session, make()).answer)

    async def claim(self, desk: Desk, limit: int) -> list[Claim]:
        dead = self._engine.dead()
        if not dead and not self._engine.read(
            lambda rows: rows.ready(desk.worker, 1) or rows.lapsed(), together=False
        ):
            return []  # without a transaction: every idle worker asks twice a second

        def work(acts: SQLiteActs) -> list[Claim]:
            orphans = [(name, process) for process in dead for name in acts.orphans(process)]
            ready = partial(acts.allowed, desk, limit)

            def op() -> Op:
                return Op(operation(), acts.origin, incarnation=acts.incarnation)

            return acts.claim(op, desk, ready, acts.lapsed(), orphans)

        # A caller that gives up must not leave claims that no worker runs.
        return await asyncio.shield(self._engine.act(work))

    # Sessions

    async def sessions(self, *, after: str = "", limit: int = 100) -> list[Session]:
        def listed(rows: Any) -> list[Session]:
            names = rows.listed(after, limit)
            return [rows.run(name, rules.view(name)).answer for name in names]

        return self._engine.read(listed)

    async def ids(self, *, after: str = "", limit: int = 100) -> list[str]:
        return self._engine.read(lambda rows: rows.listed(after, limit, rules.kept))

    async def owned(self, owner: str, *, before: Place | None, limit: int) -> list[Session]:
        def listed(rows: Any) -> list[Session]:
            found = rows.owned(owner, before or (math.inf, ""), limit)
            return [rows.run(name, rules.view(name)).answer for _, name in found]

        return self._engine.read(listed)

    async def secret(self) -> bytes:
        fresh = secrets.token_bytes(32)
        return await self._engine.act(lambda acts: acts.fact("secret", fresh))

    async def adopt(self, secret: bytes) -> None:
        await self._engine.act(lambda acts: acts.set_fact("secret", secret))

    async def publish(self, name: str, value: bytes | None) -> None:
        await self._engine.act(lambda acts: acts.set_fact(name, value))

    async def published(self, names: str) -> dict[str, bytes]:
        return self._engine.read(lambda rows: rows.published(names), together=False)

    async def ping(self) -> None:
        self._engine.read(lambda rows: rows.header(""))
        self._engine.check_space()
        await self._engine.act(lambda acts: acts.prove())

    async def waiting(self) -> int:
        return self._engine.read(lambda rows: rows.waiting(), together=False)

    async def busy(self, limit: int) -> list[Busy]:
        return self._engine.read(lambda rows: rows.busy(limit))

    async def outbox(self, channel: str, limit: int) -> list[str]:
        return self._engine.read(lambda rows: rows.outbox(channel, limit), together=False)

    async def failing(self, limit: int) -> list[str]:
        return self._engine.read(lambda rows: rows.failing(limit), together=False)

    async def facts(self) -> dict[str, str]:
        return {**await self._engine.facts(), "durability": self.durability}

    # Housekeeping

    async def sweep(self, *, retention: float, limit: int = 200) -> int:
        async def due() -> list[str]:
            return self._engine.read(lambda rows: rows.expired(limit), together=False)

        deleted = await self._expire(due)
        while await self._engine.act(lambda acts: acts.erase()):
            pass
        cutoff = self._engine.now() - retention
        start: tuple[float, int] | None = (0.0, 0)
        while start is not None:
            trim = partial(SQLiteActs.trim, cutoff=cutoff, start=start, limit=TRIM)
            start = await self._engine.act(trim)
        await self._engine.act(lambda acts: acts.forget_signals())
        while await self._engine.act(lambda acts: acts.give_back()):
            pass
        return deleted


class _Act:
    """A pending act. `settled` receives its end even if the caller was cancelled."""

    __slots__ = ("_begun", "_given_up", "_make", "_operation", "_session", "_settled")

    def __init__(
        self, session: str, make: Make, operation: str | None, settled: Settled | None
    ) -> None:
        self._session = session
        self._make = make
        self._operation = operation
        self._settled = settled
        self._begun = self._given_up = False

    def __call__(self, acts: SQLiteActs) -> Any:
        if self._given_up:
            return None
        self._begun = True
        op = Op(self._operation or operation(), acts.origin, incarnation=acts.incarnation)
        return acts.act(self._session, self._make(op))

    def settle(self, answer: Any) -> None:
        """Say once how the act ended: its answer after the commit, or None."""
        settled, self._settled = self._settled, None
        if settled is not None:
            settled(None if isinstance(answer, BaseException) else answer)

    def given_up(self, future: asyncio.Future[Any]) -> None:
        """The future is done; if the act never started, nothing was changed."""
        if not self._begun:
            self._given_up = True
            self.settle(None)


def _settle(act: Callable[[SQLiteActs], Any], answer: Any) -> None:
    if isinstance(act, _Act):
        act.settle(answer)
