"""Notices: the messages with which a store informs its listeners about commits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from turnwise.conversation import TurnRecord
from turnwise.conversation.events import Event
from turnwise.stores.entry_events import events_of
from turnwise.stores.rows import Entry, ended

log = logging.getLogger("turnwise.store")


class Appended:
    """Events were appended to a session's log; they are derived only if someone reads them."""

    __slots__ = ("_entries", "_events", "session")

    def __init__(
        self, session: str, entries: Sequence[Entry] = (), events: list[Event] | None = None
    ) -> None:
        self.session = session
        self._entries = entries
        self._events = events

    @property
    def events(self) -> list[Event]:
        """The events, in order."""
        if self._events is None:
            self._events = [event for entry in self._entries for event in events_of(entry)]
        return self._events


class Moved(NamedTuple):
    """A session's log ends with event `last` (None: events may have been missed)."""

    session: str
    last: int | None = None


class Ended:
    """A turn has ended, by the last of these entries; its record is made only if someone wants it.

    It is delivered in the process that ended the turn, before the turn's last events.
    """

    __slots__ = ("_entry", "_record", "session")

    def __init__(
        self, session: str, entry: Entry | None = None, record: TurnRecord | None = None
    ) -> None:
        self.session = session
        self._entry = entry
        self._record = record

    @property
    def n(self) -> int:
        """The turn's number."""
        n = self.record.n if self._entry is None else self._entry.turn
        assert n is not None
        return n

    @property
    def record(self) -> TurnRecord:
        """The turn's record."""
        if self._record is None:
            assert self._entry is not None
            self._record = ended(self.session, self._entry)
        return self._record


class Ready(NamedTuple):
    """A turn may be waiting for a worker, after `delay` seconds."""

    delay: float = 0.0


class Signal(NamedTuple):
    """A notice for those that hold or follow a session, which is not an event of its log.

    cancel: `turn` should stop. lost: the claim on `turn` was revoked. gone: the session was
    deleted. token: its tokens were replaced; `turn` is their generation. From other processes it
    arrives late: by then the id may belong to a new session.
    """

    kind: Literal["cancel", "lost", "gone", "token"]
    session: str
    turn: int = 0


Notice = Appended | Moved | Ended | Ready | Signal
Listener = Callable[[Notice], None]


class Listeners:
    """The listeners of a store."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every notice until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, notices: Iterable[Notice]) -> None:
        """Notify all listeners. One that fails does not affect the others or the commit."""
        for notice in notices:
            for listener in self._listeners:
                try:
                    listener(notice)
                except Exception:
                    log.exception("a listener failed")
