"""What a worker caches of a session between turns: `local`, its thread, its recent messages.

The cache is never needed for a correct answer: another worker starts without it. It is limited in
number and in bytes; the least recently used entry is dropped first, but never during its turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from turnwise.stores.claim import NO_EPOCH, Claim, Epoch
from turnwise.stores.rows import Remembered
from turnwise.threads import Threads

MEMORIES = 2000
"""Memory entries that are cached of one session."""


class CachedSession:
    """The cached data of one session."""

    __slots__ = (
        "busy", "bytes", "dropped", "epoch", "history", "incarnation", "last", "local", "memory",
        "memory_from", "memory_last", "thread",
    )  # fmt: skip

    def __init__(self, epoch: Epoch, incarnation: int) -> None:
        self.epoch = epoch
        self.incarnation = incarnation
        self.local: dict[str, Any] = {}
        self.thread: Threads | None = None
        self.history: list[bytes] | None = []
        """The last messages; None while they have to be read again."""
        self.last = 0
        self.memory: list[Remembered] | None = None
        """The memory entries from `memory_from` (exclusive) to `memory_last`; None: not known."""
        self.memory_from = self.memory_last = 0
        self.bytes = 0
        self.busy = False
        self.dropped = False
        """Whether it is no longer in the cache, although its turn still uses it."""

    def leave_hung_thread(self, timed_out: bool) -> None:
        """After a turn timed out in its thread: the next turn gets another thread, and a `local`
        that no other code writes to."""
        if timed_out and self.thread is not None and self.thread.busy:
            self.thread.end()
            self.thread, self.local = None, {}

    def recalls(self, last: int, base: int, count: int) -> bool:
        """Whether the last `count` memory entries above `base` are known, up to number `last`."""
        if self.memory is None or self.memory_last != last:
            return last <= base
        return self.memory_from <= base or len(self.memory) >= count

    @property
    def sticky(self) -> bool:
        """Whether the session's next turn should run on this worker again."""
        return bool(self.local) or self.thread is not None


class SessionCache:
    """The sessions a worker caches: at most `limit` of them and `budget` bytes of messages."""

    def __init__(self, *, history: int, limit: int = 1000, budget: int = 64_000_000) -> None:
        self._history = history
        self._limit = limit
        self._budget = budget
        self._bytes = 0
        self._kept: OrderedDict[str, CachedSession] = OrderedDict()

    def known(self, session: str) -> tuple[Epoch, int]:
        """The `seq` up to which this worker holds the session's messages, and of which epoch."""
        kept = self._kept.get(session)
        return (NO_EPOCH, 0) if kept is None or kept.history is None else (kept.epoch, kept.last)

    def take(self, claim: Claim) -> CachedSession:
        """The cache of the claim's session, updated with the claim's messages."""
        kept = self._kept.get(claim.session)
        if kept is None or kept.epoch != claim.epoch:  # not cached, or reset meanwhile
            self.drop(claim.session)
            kept = self._kept[claim.session] = CachedSession(claim.epoch, claim.incarnation)
        elif kept.incarnation != claim.incarnation:  # the store may have lost some of them
            self._forget_history(kept)
            self._forget_memory(kept)
            kept.incarnation = claim.incarnation
        self._kept.move_to_end(claim.session)
        kept.busy = True
        if claim.history_from <= kept.last and kept.history is not None:
            self._extend(kept, claim.history[kept.last - claim.history_from :])
        elif claim.whole:
            self._replace(kept, claim.history)
        else:  # the claim has only newer messages, and the older ones are no longer cached
            self._forget_history(kept)
        kept.last = claim.seq
        if kept.memory_last != claim.memory:  # another worker has written
            self._forget_memory(kept)
        return kept

    def _forget_memory(self, kept: CachedSession) -> None:
        self._count(kept, -sum(len(one.body) for one in kept.memory or ()))
        kept.memory, kept.memory_last = None, 0

    def recall(
        self, kept: CachedSession, found: Sequence[Remembered], last: int, after: int | None
    ) -> None:
        """The last memory entries of a session, up to the number `last`; `after`: all above it."""
        self._forget_memory(kept)
        kept.memory, kept.memory_last = list(found), last
        kept.memory_from = found[0].n - 1 if after is None and found else after or 0
        self._count(kept, sum(len(one.body) for one in found))

    def remember(self, kept: CachedSession, added: Sequence[Remembered]) -> None:
        """A turn of the session has added entries to its memory."""
        first, last = added[0].n, added[-1].n
        if first == 1:
            kept.memory, kept.memory_from = [], 0
        elif kept.memory is None or kept.memory_last != first - 1:
            return
        kept.memory.extend(added)
        kept.memory_last = last
        self._count(kept, sum(len(one.body) for one in added))
        while len(kept.memory) > MEMORIES:
            dropped = kept.memory.pop(0)
            kept.memory_from = dropped.n
            self._count(kept, -len(dropped.body))

    def _count(self, kept: CachedSession, change: int) -> None:
        kept.bytes += change
        if not kept.dropped:
            self._bytes += change

    def _forget_history(self, kept: CachedSession) -> None:
        self._count(kept, -sum(map(len, kept.history or ())))
        kept.history = None

    def fill(self, kept: CachedSession, messages: Sequence[bytes]) -> None:
        """The last messages of a session, read again."""
        self._replace(kept, messages)

    def give_back(
        self, session: str, kept: CachedSession, said: Sequence[bytes], last: int
    ) -> None:
        """A turn of `session` ended with these placed messages."""
        kept.busy = False
        if said and self._kept.get(session) is kept and kept.history is not None:
            self._extend(kept, said)
            kept.last = last

    def sticky(self) -> list[str]:
        """The sessions whose next turn should run on this worker."""
        return [session for session, kept in self._kept.items() if kept.sticky]

    def drop(self, session: str) -> None:
        """Remove `session` from the cache."""
        kept = self._kept.pop(session, None)
        if kept is not None:
            self._bytes -= kept.bytes
            kept.dropped = True
            if kept.thread is not None:
                kept.thread.end()

    def close(self) -> None:
        """Drop everything."""
        for session in list(self._kept):
            self.drop(session)

    def _replace(self, kept: CachedSession, history: Sequence[bytes]) -> None:
        self._forget_history(kept)
        kept.history = []
        self._extend(kept, history)

    def _extend(self, kept: CachedSession, messages: Sequence[bytes]) -> None:
        if not messages or kept.history is None:
            return
        kept.history.extend(messages)
        change = sum(map(len, messages))
        extra = len(kept.history) - self._history
        if extra > 0:
            change -= sum(map(len, kept.history[:extra]))
            del kept.history[:extra]
        self._count(kept, change)

    def shrink(self) -> list[str]:
        """Drop entries above the limits; returns the sticky sessions among them."""
        dropped: list[str] = []
        while len(self._kept) > self._limit or self._bytes > self._budget:
            idle = next((name for name, kept in self._kept.items() if not kept.busy), None)
            if idle is None:
                break
            if self._kept[idle].sticky:
                dropped.append(idle)
            self.drop(idle)
        return dropped
