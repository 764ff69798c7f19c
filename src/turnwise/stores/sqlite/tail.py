"""What other processes have appended to the file, delivered to this process's listeners.

Every process checks every 10 ms whether another has committed (`PRAGMA data_version`, 2 us, on the
connection that writes, for which its own commits do not count) and, if so, reads the entries
appended since. It needs no query per reader, and derives no events of sessions without followers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import apsw

from turnwise.stores.notices import Appended, Listeners, Moved, Notice, Ready, Signal
from turnwise.stores.rows import Entry, is_waiting
from turnwise.stores.sqlite.schema import STATEMENTS

PAGE = 1000
"""Rows read per check."""


class Tail:
    """The position up to which this process, `origin`, has read what others appended.

    `writer` shows whether another process has committed, `reader` reads it, and `restored` is
    called when the file holds less than before.
    """

    def __init__(
        self,
        writer: apsw.Connection,
        reader: apsw.Connection,
        listeners: Listeners,
        followed: Counter[str],
        *,
        origin: int,
        restored: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._listeners = listeners
        self._followed = followed
        self._origin = origin
        self._restored = restored
        self._version = 0
        self._position = reader.execute(STATEMENTS["tail_position"]).get
        self._signal_position = reader.execute(STATEMENTS["tail_signal_position"]).get
        self._end = 0
        self.looked = 0.0
        """When it was last checked whether others have written."""
        self.heard = 0.0
        """When such a check last found that they had."""

    def appended(self, entry: int) -> None:
        """This process has appended the log's entries up to this one."""
        self._end = max(self._end, entry)

    def look(self) -> None:
        """Deliver what others have appended since the last check."""
        self.looked = time.monotonic()
        try:
            version = self._writer.execute("PRAGMA data_version").get
            if version != self._version:
                self._version = version
                self.heard = self.looked
                self._read()
        except apsw.Error:
            self._version = 0  # look again next time

    def _read(self) -> None:
        """Read it as one snapshot, and notify the listeners."""
        self._reader.execute("BEGIN")
        try:
            if self._reader.execute(STATEMENTS["tail_position"]).get < self._end:
                self._begin_again()
            entries = self._foreign("entries", self._position)
            signals = self._foreign("signals", self._signal_position)
            # If everything was read, the next check starts after our own rows as well.
            self._position = self._end_of(entries, "tail_position")
            self._end = max(self._end, self._position)
            self._signal_position = self._end_of(signals, "tail_signal_position")
        finally:
            self._reader.execute("COMMIT")
        appended: dict[str, list[Entry]] = {}
        queued = False
        for _, session, *values in entries:
            entry = Entry(*values)
            if session in self._followed:
                appended.setdefault(session, []).append(entry)
            queued = queued or is_waiting(entry)
        notices: list[Notice] = [Appended(session, told) for session, told in appended.items()]
        for _, kind, session, turn in signals:
            notices.append(Ready() if kind == "ready" else Signal(kind, session, turn))
        self._listeners.tell([*notices, Ready()] if queued else notices)

    def _begin_again(self) -> None:
        """The file holds less than before: everything cached from it is invalid."""
        self._position = self._signal_position = self._end = 0
        self._restored()
        self._listeners.tell([*(Moved(session) for session in self._followed), Ready()])

    def _foreign(self, table: str, start: int) -> list[Any]:
        values = (start, self._origin, PAGE)
        found: list[Any] = self._reader.execute(STATEMENTS[f"tail_{table}"], values).fetchall()
        return found

    def _end_of(self, rows: list[Any], position: str) -> int:
        if len(rows) == PAGE:
            self._version = 0  # there is more: look again next time
            return int(rows[-1][0])
        return int(self._reader.execute(STATEMENTS[position]).get)
