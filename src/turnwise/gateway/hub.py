"""Hub: delivers committed events to all readers that follow a session in this process.

Delivery by the hub is only a shortcut: a reader that missed an event reads the log.
"""

from __future__ import annotations

from functools import partial

from turnwise.conversation import Cursor
from turnwise.errors import (
    QueueFull,
)
from turnwise.gateway.reader import Reader
from turnwise.gateway.waiter import Waiter
from turnwise.stores.base import Store
from turnwise.stores.notices import Appended, Ended, Moved, Notice, Signal
from turnwise.timers import Alarms


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
        self._waiters: dict[str, list[Waiter]] = {}
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
        after: int | Cursor,
        *,
        turn: int | None = None,
        generation: int | None = None,
        limited: bool = True,
    ) -> Reader:
        """A new reader of `session` after event `after`; close it when done.

        With `turn` it receives only that turn's events and ends with the last one. With
        `generation` it is closed when the session's tokens are replaced. Raises TooManyStreams.
        """
        if limited:
            self.check_room()
        self._store.follow(session)
        place = after if isinstance(after, Cursor) else Cursor(after)
        reader = Reader(self.leave, self.alarms, self._store, session, place, turn, generation)
        self._readers.setdefault(session, {})[reader] = None
        self._count += 1
        if self._shut:
            reader.shut("shutdown")
        return reader

    def expect(self, session: str) -> Waiter:
        """Wait for the end of a turn of `session` that is submitted next; close it when done.

        Raises TooManyStreams.
        """
        if self._count >= self._limit:
            raise TooManyStreams()
        waiter = Waiter(self.alarms, partial(self._forget, session))
        self._waiters.setdefault(session, []).append(waiter)
        self._count += 1
        if self._shut:
            waiter.wake()
        return waiter

    def _forget(self, session: str, waiter: Waiter) -> None:
        self._count -= 1
        waiting = self._waiters[session]
        waiting.remove(waiter)
        if not waiting:
            del self._waiters[session]

    def is_followed(self, session: str, turn: int) -> bool:
        """Whether anybody here reads the events of this turn, or all of its session's."""
        return any(one.turn in (None, turn) for one in self._readers.get(session, ()))

    def check_room(self) -> None:
        """Raises TooManyStreams if no reader can join."""
        if self._count >= self._limit:
            raise TooManyStreams()

    @property
    def shut(self) -> bool:
        """Whether this process is stopping."""
        return self._shut

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
        for waiting in self._waiters.values():
            for waiter in waiting:
                waiter.wake()

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
            for waiter in self._waiters.get(notice.session, ()):
                waiter.hear(notice)
            for reader in self._readers.get(notice.session, ()):
                reader.record = notice.record
        elif isinstance(notice, Signal):
            for reader in self._readers.get(notice.session, ()):
                if notice.kind == "gone":
                    reader.recheck()
                elif notice.kind == "token" and (reader.generation or notice.turn) < notice.turn:
                    reader.shut("token")
