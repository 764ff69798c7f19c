"""Reader: a position in a session's log that follows new events.

Events that the hub delivers in order are passed through; if one is missing, the reader's buffer was
full, or the reader is new, it reads the log from its cursor. So a reader receives every event once
and in order, a slow reader costs a bounded buffer, and a cursor that the log cannot continue yields
one `gap`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from turnwise.conversation import Cursor, TurnRecord, events, parsed
from turnwise.conversation.events import Event
from turnwise.errors import NotFound, StoreUnavailable, StreamEnded, TurnwiseError, Unauthorized
from turnwise.stores.base import Store
from turnwise.stores.records import Log
from turnwise.timers import PERIOD, Alarms

CAPACITY = 256
"""Events that are buffered for a reader before it must read the log again."""
PAGE = 200
"""Events read from the log at once."""
RETRY = 0.25
"""Seconds between two attempts to read the log while the store is unavailable."""

Closed = Literal["gone", "token", "shutdown", "left"]


class Reader:
    """A position in a session's log that follows new events.

    `closed` is the reason why it ended early: the session was deleted, its tokens were replaced,
    the process stops, the client disconnected. `ended` is true after the last event of its turn.
    """

    __slots__ = (
        "_alarms",
        "_behind",
        "_buffer",
        "_leave",
        "_missed",
        "_nudged",
        "_over",
        "_quiet",
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
        "tag",
    )

    def __init__(
        self,
        leave: Callable[[Reader], None],
        alarms: Alarms,
        store: Store,
        session: str,
        after: Cursor,
        turn: int | None,
        generation: int | None,
    ) -> None:
        self._leave = leave
        self._alarms = alarms
        self._store = store
        self.session = session
        self.cursor, self.tag = after
        self._turn = turn
        self.generation = generation
        self.record: TurnRecord | None = None
        """The turn that ended last, if it ended in this process, or if its record was read."""
        self.closed: Closed | None = None
        self.ended = False
        self._behind = True
        self._missed = False
        self._nudged = False
        self._over = False
        self._quiet = False
        self._trouble: StoreUnavailable | None = None
        self._buffer: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def turn(self) -> int | None:
        """The turn whose events it reads, or None: those of all."""
        return self._turn

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

    def only_the_end(self) -> None:
        """From now on nothing but the end of its turn is wanted: where events may have been missed,
        the turn's record is read and not the log."""
        self._quiet = True

    def start_at(self, turn: int, first_event: int) -> None:
        """Follow a turn that was created after this reader joined: no event was missed."""
        self._turn, self.cursor, self._behind = turn, first_event - 1, self._missed
        self.tag = ""

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
            cancel = partial(self._alarms.cancel, self._alarms.set(seconds, self.nudge))
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
            if self._buffer and not self._behind:  # it came while the store was read
                continue
            await self._wait()
        self._nudged = False
        return []

    def close(self) -> None:
        """Leave the hub."""
        self._leave(self)

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
            if event.id != self.cursor + 1 and not self._quiet:
                self._behind = True
                break
            self._pass(event, found)
        return found

    async def _patient_replay(self) -> list[Event]:
        """`_replay`, or nothing while the store is unavailable; the caller then retries."""
        try:
            found = await (self._look() if self._quiet else self._replay())
        except StoreUnavailable as error:
            self._behind, self._trouble = True, error
            asyncio.get_running_loop().call_later(RETRY, self._wake)
            return []
        self._trouble = None
        return found

    async def _replay(self) -> list[Event]:
        """The log's events after the cursor."""
        self._behind = False
        log = await self._store.log(
            self.session, self.cursor, limit=PAGE, turn=self._turn, tag=self.tag
        )
        if log is None:
            self.shut("gone")
            return []
        if log.resume is not None or not log.floor <= self.cursor <= log.last:
            return [self._gap(log)]
        found: list[Event] = []
        for event in log.events:
            parsed(event.encoded, self.session)
            self._pass(event, found)
        if len(log.events) == PAGE:
            self._behind = True
        elif not self.ended:
            self._move_to(max(self.cursor, log.last))
            if self._over:
                self.ended = True
            elif self._turn is not None and not found:
                # Its end may be older than the log. The log drops the oldest first, so where it has
                # any of a turn's events, the end is there, too, or will come.
                # The turn may also have ended after the log was read: read once more.
                record = await self._store.turn(self.session, self._turn)
                self._over = self._behind = record is None or not record.open
        return found

    async def _look(self) -> list[Event]:
        """Whether the turn has ended; its events are not wanted."""
        self._behind = False
        assert self._turn is not None
        record = await self._store.turn(self.session, self._turn)
        merged = record is not None and record.merged_into is not None
        if record is None or merged or not record.open:
            self.ended = True
            self.record = None if merged else record
        return []

    def _gap(self, log: Log) -> Event:
        """The log cannot continue this reader's cursor: go on where it can."""
        asked = self.cursor
        resume = min(max(asked, log.floor), log.last) if log.resume is None else log.resume
        self.cursor, self.tag, self._behind = resume, "", True
        return events.gap(asked, resume, time.time())

    def _move_to(self, number: int) -> None:
        """Pass over events of other turns."""
        if number != self.cursor:
            self.cursor, self.tag = number, ""

    @property
    def place(self) -> Cursor:
        """The event that was read last."""
        return Cursor(self.cursor, self.tag)

    def _pass(self, event: Event, found: list[Event]) -> None:
        self.cursor, self.tag = event.id, event.tag
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
