"""Recollection: an attempt's access to its session's memory, over what the worker caches of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import orjson

from turnwise.errors import BadOutput, ClaimLost, MemoryFull, StoreUnavailable
from turnwise.identity import operation
from turnwise.memory import Entry
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim
from turnwise.stores.rows import Remembered
from turnwise.worker.session_cache import CachedSession, SessionCache

T = TypeVar("T")
MAX_ENTRY = 1_000_000
"""Bytes of one entry, at most."""
RETRY = 0.2
"""Seconds between two tries while the store is away."""


class Recollection:
    """The memory of the session of `claim`; at most `limit` bytes. `lost` is called when the claim
    is."""

    def __init__(
        self,
        store: Store,
        claim: Claim,
        kept: CachedSession,
        cache: SessionCache,
        limit: int,
        lost: Callable[[], None],
    ) -> None:
        self._store = store
        self._claim = claim
        self._kept = kept
        self._cache = cache
        self._limit = limit
        self._lost = lost
        self._lock = asyncio.Lock()
        """Additions and readings stand in line: a repetition knows its own by the last entry, and
        what is cached is complete."""
        self.over = False
        """Whether the attempt has ended, so that nothing more is written."""

    async def remember(self, entries: tuple[Any, ...]) -> int:
        """Add entries; while the store is away, try on: the same operation, so only once."""
        bodies = [_encoded(entry) for entry in entries]
        if not bodies:
            return self._claim.memory
        name, tries = operation(), itertools.count()

        def add() -> Awaitable[int]:
            again = next(tries) > 0
            return self._store.remember(
                self._claim, bodies, self._limit, operation=name, again=again
            )

        async with self._lock:
            last = await self.insist(add)
            self._note(last, bodies)
        return last

    def _note(self, last: int, bodies: list[bytes]) -> None:
        first = last - len(bodies) + 1
        told = [Remembered(first + i, self._claim.turn, body) for i, body in enumerate(bodies)]
        self._cache.remember(self._kept, told)
        self._claim.memory = max(self._claim.memory, last)

    async def recall(self, last: int) -> list[Entry]:
        """The last entries, oldest first."""
        if last < 1:
            return []
        claim, kept = self._claim, self._kept
        async with self._lock:
            if not kept.recalls(claim.memory, claim.base_memory, last):
                read = partial(self._store.memory, claim.session, limit=last)
                found = await self.insist(read)
                every = claim.base_memory if len(found) < last else None
                self._cache.recall(kept, found, claim.memory, every)
        known = [one for one in kept.memory or () if one.n > claim.base_memory]
        return [Entry(one.n, one.turn, orjson.loads(one.body)) for one in known[-last:]]

    async def forget(self, before: int | None) -> None:
        """Forget what is older than an entry, or all there is."""
        first = self._claim.memory + 1 if before is None else before
        forget = partial(self._store.forget_memory, self._claim, first)
        async with self._lock:
            self._claim.base_memory = await self.insist(forget)

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the store answers; while it is away, the turn waits, as long as it is ours."""
        while True:
            if self.over:
                raise ClaimLost()
            try:
                return await ask()
            except ClaimLost:
                self._lost()
                raise
            except StoreUnavailable:
                await asyncio.sleep(RETRY)


def _encoded(entry: Any) -> bytes:
    try:
        body = orjson.dumps(entry)
    except TypeError as error:
        raise BadOutput(f"A memory entry must be JSON: {error}") from error
    if len(body) > MAX_ENTRY:
        raise MemoryFull(f"A memory entry has at most {MAX_ENTRY:,} bytes, not {len(body):,}.")
    return body
