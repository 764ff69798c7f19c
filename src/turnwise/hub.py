"""Hub: delivers committed events to all readers that follow a session in this process.

A reader holds a cursor. Delivery by the hub is only a shortcut: events that arrive in order are
passed through; if one is missing, the reader's buffer was full, or the reader is new, it reads the
log from its cursor. So a reader receives every event once and in order, a slow reader costs a
bounded buffer, and a cursor that the log cannot continue yields one `gap`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from turnwise import events
from turnwise.alarms import PERIOD, Alarms
from turnwise.conversation import TurnRecord, parsed
from turnwise.errors import (
    NotFound,
    QueueFull,
    StoreUnavailable,
    StreamEnded,
    TurnwiseError,
    Unauthorized,
)
from turnwise.events import Event
from turnwise.stores.base import Store
from turnwise.stores.notices import Appended, Ended, Moved, Notice, Signal

CAPACITY = 256
"""Events that are buffered for a reader before it must read the log again."""
PAGE = 200
"""Events read from the log at once."""
RETRY = 0.25
"""Seconds between two attempts to read the log while the store is unavailable."""

Closed = Literal["gone", "token", "shutdown", "left"]


class TooManyStreams(QueueFull):
    """This server has reached its maximum of open streams; try again, or poll."""

    code = "too_many_streams"
    retry_after = 5.0


class Hub:
    """All readers of one process. `limit` is their maximum number."""

    def __init__(self, store: Store, *, limit: int = 10_000) -> None:
        self._store = store
        self._limit = limit
        self._readers: dict[str, dict[Reader, None]] = {}
        self._count = 0
        self.alarms = Alarms()
        self._shut = False
        self._unlisten = store.listen(self._hear)

    @property
    def count(self) -> int:
        """How many readers there are."""
        return self._count

    def join(
        self,
        session: str,
        after: int,
        *,
        turn: int | None = None,
        generation: int | None = None,
        limited: bool = True,
    ) -> Reader:
        """A new reader of `session` after event `after`; close it when done.

        With `turn` it receives only that turn's events and ends with the last one. With
        `generation` it is closed when the session's tokens are replaced. Raises TooManyStreams.
        """
        if limited and self._count >= self._limit:
            raise TooManyStreams()
        self._store.follow(session)
        reader = Reader(self, self._store, session, after, turn, generation)
        self._readers.setdefault(session, {})[reader] = None
        self._count += 1
        if self._shut:
            reader.shut("shutdown")
        return reader

    def leave(self, reader: Reader) -> None:
        """Remove a reader; removing it twice is not an error."""
        followers = self._readers.get(reader.session)
        if followers is None or reader not in followers:
            return
        del followers[reader]
        self._count -= 1
        self._store.unfollow(reader.session)
        if not followers:
            del self._readers[reader.session]

    def shutdown(self) -> None:
        """Close all readers, new ones at once: this process will stop."""
        self._shut = True
        self.alarms.ring_all()  # do not wait for bodies that are still being sent
        for followers in self._readers.values():
            for reader in followers:
                reader.shut("shutdown")

    def close(self) -> None:
        """Stop listening to the store."""
        self._unlisten()

    def _hear(self, notice: Notice) -> None:
        if isinstance(notice, Appended):
            for reader in self._readers.get(notice.session, ()):
                reader.push(notice.events)
        elif isinstance(notice, Moved):
            for reader in self._readers.get(notice.session, ()):
                if reader.cursor != notice.last:
                    reader.recheck()
        elif isinstance(notice, Ended):
            for reader in self._readers.get(notice.record.session, ()):
                reader.record = notice.record
        elif isinstance(notice, Signal):
            for reader in self._readers.get(notice.session, ()):
                if notice.kind == "gone":
                    reader.recheck()
                elif notice.kind == "token" and (reader.generation or notice.turn) < notice.turn:
                    reader.shut("token")


class Reader:
    """A position in a session's log that follows new events.

    `closed` is the reason why it ended early: the session was deleted, its tokens were replaced,
    the process stops, the client disconnected. `ended` is true after the last event of its turn.
    """

    __slots__ = (
        "_behind",
        "_buffer",
        "_hub",
        "_missed",
        "_nudged",
        "_over",
        "_store",
        "_trouble",
        "_turn",
        "_waiter",
        "closed",
        "cursor",
        "ended",
        "generation",
        "record",
        "session",
    )

    def __init__(
        self,
        hub: Hub,
        store: Store,
        session: str,
        after: int,
        turn: int | None,
        generation: int | None,
    ) -> None:
        self._hub = hub
        self._store = store
        self.session = session
        self.cursor = after
        self._turn = turn
        self.generation = generation
        self.record: TurnRecord | None = None
        """The turn that ended last, if it ended in this process."""
        self.closed: Closed | None = None
        self.ended = False
        self._behind = True
        self._missed = False
        self._nudged = False
        self._over = False
        self._trouble: StoreUnavailable | None = None
        self._buffer: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    # Called by the hub

    def push(self, appended: list[Event]) -> None:
        """Deliver committed events and wake the reader."""
        if len(self._buffer) + len(appended) > CAPACITY:
            self._buffer.clear()
            self._behind = self._missed = True
        else:
            self._buffer.extend(appended)
        self._wake()

    def recheck(self) -> None:
        """Some events may not have been delivered: read the log."""
        self._behind = self._missed = True
        self._wake()

    def shut(self, why: Closed) -> None:
        """End the reader; `read` returns at once from now on."""
        self.closed = self.closed or why
        self._wake()

    def nudge(self) -> None:
        """Let a waiting `read` return an empty list."""
        self._nudged = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Called by a channel

    def start_at(self, turn: int, first_event: int) -> None:
        """Follow a turn that was created after this reader joined: no event was missed."""
        self._turn, self.cursor, self._behind = turn, first_event - 1, self._missed

    async def read(self, timeout: float | None = None) -> list[Event]:
        """The next events, or an empty list after `timeout` seconds, a nudge, or at the end.

        While the store is unavailable a reader waits for it; with a `timeout` it raises
        StoreUnavailable when the time is up.
        """
        if timeout is None:
            return await self._read()
        with self.within(timeout):
            found = await self._read()
        if not found and self._trouble is not None:
            raise self._trouble
        return found

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events one by one, up to the last event of the turn it follows.

        Raises StreamEnded if this process stops first, NotFound if the session is deleted,
        Unauthorized if its tokens are replaced, so that an incomplete reply never looks complete.
        """
        while not (self.ended or self.closed):
            for event in await self.read():
                yield event
        if not self.ended and self.closed is not None:
            raise _ended_early(self.closed)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Within the block, the reader is woken after `seconds`."""
        if seconds < 4 * PERIOD:  # a delay of a quarter of a second matters here
            timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self.nudge)
            cancel: Callable[[], None] = timer.cancel
        else:
            cancel = partial(self._hub.alarms.cancel, self._hub.alarms.set(seconds, self.nudge))
        try:
            yield
        finally:
            cancel()
            self._nudged = False

    async def _read(self) -> list[Event]:
        while not (self.closed or self.ended):
            found = await self._patient_replay() if self._behind else self._live()
            if found:
                return found  # a wake-up that arrived meanwhile applies to the next read
            if (self._behind and self._trouble is None) or self.ended or self.closed:
                continue
            if self._nudged:
                break
            await self._wait()
        self._nudged = False
        return []

    def close(self) -> None:
        """Leave the hub."""
        self._hub.leave(self)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _live(self) -> list[Event]:
        """The events from the hub that directly follow the cursor."""
        found: list[Event] = []
        while self._buffer and not self.ended:
            event = self._buffer.popleft()
            if event.id <= self.cursor:
                continue
            if event.id != self.cursor + 1:
                self._behind = True
                break
            self._pass(event, found)
        return found

    async def _patient_replay(self) -> list[Event]:
        """`_replay`, or nothing while the store is unavailable; the caller then retries."""
        try:
            found = await self._replay()
        except StoreUnavailable as error:
            self._behind, self._trouble = True, error
            asyncio.get_running_loop().call_later(RETRY, self._wake)
            return []
        self._trouble = None
        return found

    async def _replay(self) -> list[Event]:
        """The log's events after the cursor."""
        self._behind = False
        log = await self._store.log(self.session, self.cursor, limit=PAGE, turn=self._turn)
        if log is None:
            self.shut("gone")
            return []
        if not log.floor <= self.cursor <= log.last:
            self._behind = True
            asked, self.cursor = self.cursor, min(max(self.cursor, log.floor), log.last)
            return [events.gap(asked, self.cursor, time.time())]
        found: list[Event] = []
        for event in log.events:
            parsed(event.encoded, self.session)
            self._pass(event, found)
        if len(log.events) == PAGE:
            self._behind = True
        elif not self.ended:
            self.cursor = max(self.cursor, log.last)
            if self._over:
                self.ended = True
            elif self._turn is not None:
                # The turn may have ended after the log was read: read once more for later events.
                record = await self._store.turn(self.session, self._turn)
                self._over = self._behind = record is None or not record.open
        return found

    def _pass(self, event: Event, found: list[Event]) -> None:
        self.cursor = event.id
        if self._turn is None or event.turn == self._turn:
            found.append(event)
            self.ended = self._turn is not None and event.type in events.TERMINAL


def _ended_early(why: Closed) -> TurnwiseError:
    """The error for a caller whose reader was closed for this reason."""
    match why:
        case "gone":
            return NotFound("This session was deleted.")
        case "token":
            return Unauthorized("The token has expired or was replaced.")
        case _:
            return StreamEnded()
