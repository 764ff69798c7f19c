"""Notices: what a store tells its listeners about what was committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from turnwise.conversation import TurnRecord
from turnwise.events import Event

log = logging.getLogger("turnwise.store")


class Appended(NamedTuple):
    """Events were appended to a session's log."""

    session: str
    events: list[Event]


class Moved(NamedTuple):
    """A session's log ends with event `last` (None: perhaps further than was told)."""

    session: str
    last: int | None = None


class Ended(NamedTuple):
    """A turn has ended, and this is its record. Told in the process that ended it, before its
    last events are."""

    record: TurnRecord


class Ready(NamedTuple):
    """A turn may be waiting for a worker."""


class Signal(NamedTuple):
    """Something that concerns whoever holds or follows a session, and is no event of its log.

    cancel: `turn` should stop. lost: the claim on `turn` was taken away. gone: the session was
    deleted. token: its tokens were made anew; `turn` is their generation. From other processes it
    comes late, when the session may be another of the same name already.
    """

    kind: Literal["cancel", "lost", "gone", "token"]
    session: str
    turn: int = 0


Notice = Appended | Moved | Ended | Ready | Signal
Listener = Callable[[Notice], None]


class Listeners:
    """Those who hear a store's notices."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` every notice until the function returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, notices: Iterable[Notice]) -> None:
        """Tell everyone. One who fails hurts nobody: what is committed stays committed."""
        for notice in notices:
            for listener in self._listeners:
                try:
                    listener(notice)
                except Exception:
                    log.exception("a listener failed")
