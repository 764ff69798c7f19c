"""Acts on a SQLite connection: how changes are written, and what is deleted is removed.

The cost does not grow with the conversation: appended rows, and a few that are written anew.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import apsw

from turnwise.stores import local, rules
from turnwise.stores.header import PLACED, Header, Index, needed_from
from turnwise.stores.notices import Ready, Signal
from turnwise.stores.rows import Entry, blanked
from turnwise.stores.rules import STATES, Changes
from turnwise.stores.sqlite.readings import SQLiteReadings

PROOF = 4096
"""Bytes that a readiness check writes: as many as a turn, so that it needs space on the disk."""
SLICE = 500
"""Entries that are erased in the act that deletes them; the others follow in slices."""
SPARE = 1000
"""Free pages that a file keeps for what comes next."""
KEPT = 5000
"""Headers that are kept between transactions."""


class SQLiteActs(SQLiteReadings, local.Acts):
    """Acts on the connection that writes. `origin` is this process's number.

    `erased`: data was deleted, and the engine has not handled that yet.
    """

    def __init__(
        self,
        db: apsw.Connection,
        sql: Mapping[str, str],
        clock: Callable[[], float],
        origin: int,
    ) -> None:
        SQLiteReadings.__init__(self, db, sql, clock)
        self.begin(origin)
        self._rowid = db.last_insert_rowid
        self.last_entry = 0
        """The position of the entry that was appended last."""
        self.erased = False
        self._kept: dict[str, tuple[int, Header]] = {}
        """Headers as this process has written them last. An act takes its header out, for it may
        change it and then refuse; only one that was written is kept again."""
        self._data_version = 0

    def begun(self) -> None:
        """A transaction has begun. If others have written, what is kept here is worthless."""
        version = self._execute("PRAGMA data_version").get
        if version != self._data_version or len(self._kept) > KEPT:
            self._data_version = version
            self._kept.clear()

    def failed(self) -> None:
        """The transaction was rolled back."""
        self._kept.clear()

    def header(self, session: str) -> Header | None:
        kept = self._kept.pop(session, None)
        if kept is None:
            return super().header(session)
        self._num = kept[0]
        return kept[1]

    def _do(self, name: str, *values: Any) -> None:
        self._execute(self._sql[name], values)

    def write(self, session: str, changes: Changes) -> None:
        header = changes.header
        assert header is not None
        now = rules.index(header)
        if changes.delete or (changes.fresh and self._num):
            self._remove(self._num)
        if changes.delete:
            self._tell(changes, session)
            return
        body = header.encode()
        if changes.fresh:
            self._do("insert", session, body, *now[:5], self._place(now))
            self._num = self._rowid()
        elif now == changes.was:
            self._execute(self._sql["save"], (body, self._num))
        else:
            place = self._place(now)
            self._execute(self._sql["save_index"], (body, *now[:5], place, self._num))
        num, origin = self._num, self.origin
        if now.owned is not None and (changes.fresh or now != changes.was):
            self._do("own", num, session, *now.owned)
        if now.outbox != (None if changes.fresh or changes.was is None else changes.was.outbox):
            if now.outbox is None:
                self._do("sent", num)
            else:
                self._do("to_send", num, now.outbox)
        self._kept[session] = num, header
        for entry in changes.entries:
            self._execute(self._sql["add_entry"], (num, *entry, origin))
            if entry.kind == "f":
                self._do("fail", num, rules.failed_at([entry]))
        if changes.entries:
            self.last_entry = self._rowid()
        for key, value in changes.keys:
            self._do("add_key", num, key, value)
        for number, state in changes.states.items():
            self._do("add_state", num, number, state)
            self._do("drop_state", num, number - STATES)
        for name, part in changes.parts.items():
            self._do("save_part", num, name, part)
        if changes.unlearned is not None:
            self._do("unlearn", num, *changes.unlearned)
        if changes.forgotten is not None:
            self._do("forget_memory", num, changes.forgotten)
        if changes.erase:
            self._do("drop_states", num)
            self._do("erase", num, header.base_event)
            self.erase()
        if changes.notices:
            self._tell(changes, session)

    def _place(self, index: Index) -> int | None:
        """Where a session stands in the line that gets in there now."""
        if index.ready is None or index.ready > self.now() + PLACED:
            return None
        place: int = self._value("first_place") or 1
        if index.owned is not None:
            place = max(place, 1 + (self._value("last_place", index.owned.owner) or 0))
        return place

    def _tell(self, changes: Changes, session: str) -> None:
        """Leave a signal for other processes of what no entry shows."""
        for notice in changes.notices:
            if isinstance(notice, Signal):
                self._signal(notice.kind, session, notice.turn)
            elif isinstance(notice, Ready) and not any(e.kind == "q" for e in changes.entries):
                self._signal("ready", session, 0)

    def _signal(self, kind: str, session: str, turn: int) -> None:
        self._do("add_signal", kind, session, turn, self.now(), self.origin)

    # Housekeeping

    def _remove(self, num: int) -> None:
        """Delete a session's header now; what it had follows in slices."""
        self._do("delete", num)
        self._do("disown", num)
        self._do("unfail", num)
        self._do("sent", num)
        self._do("erase", num, None)
        self.erase()

    def erase(self, limit: int = SLICE) -> bool:
        """Remove a slice of what was deleted; returns whether there is more."""
        found = self._one("erasing")
        if found is None:
            return False
        self.erased = True
        num, last = found
        whole = last is None
        more = self._erase_all(num, limit) if whole else self._erase_upto(num, last, limit)
        if not more:
            self._do("erased", num)
        return True

    def _erase_all(self, num: int, limit: int) -> bool:
        self._do("erase_entries", num, limit)
        self._do("erase_keys", num, limit)
        self._do("drop_states", num)
        self._do("erase_parts", num)
        return bool(self._entries_of(num) or self._one("any_key", num))

    def _entries_of(self, num: int) -> bool:
        return self._one("any_entry", num) is not None

    def _erase_upto(self, num: int, last: int, limit: int) -> bool:
        """What a reset removed; of turns with a key it stays how they ended."""
        rows = self._all("emptied", num, last, limit)
        for pos, *values in rows:
            left = blanked(Entry(*values))
            if left is None:
                self._do("delete_entry", pos)
            else:
                self._do("blank_entry", left.kind, left.body, pos)
        return len(rows) == limit

    def trim(self, cutoff: float, start: tuple[float, int], limit: int) -> tuple[float, int] | None:
        """Remove a slice of what attempts wrote before `cutoff`, but nothing of an open turn.

        Returns where the next slice starts, or None after the last.
        """
        rows = self._all("old_entries", cutoff, *start, limit)
        kept_from: dict[int, float] = {}
        horizon: dict[int, int] = {}
        for pos, num, last, _ in rows:
            if num not in kept_from:
                kept_from[num] = needed_from(self._value("header_of", num))
            if last < kept_from[num]:
                self._do("delete_entry", pos)
                horizon[num] = max(last, horizon.get(num, 0))
        for num, last in horizon.items():
            self._do("raise_horizon", last, num)
        return (rows[-1][3], rows[-1][0]) if len(rows) == limit else None

    def forget_signals(self) -> None:
        """Remove signals that every process has read long ago."""
        self._do("delete_signals", self.now() - 60.0)

    def give_back(self) -> bool:
        """Make the file smaller by a slice of what is free in it; returns whether there is more.

        A file that was made before version 3 keeps its size; its pages are used again.
        """
        free: int = self._execute("PRAGMA freelist_count").get
        if free <= SPARE or not self._execute("PRAGMA auto_vacuum").get:
            return False
        self._execute(f"PRAGMA incremental_vacuum({min(free - SPARE, SLICE)})").fetchall()
        return free - SPARE > SLICE

    def fact(self, name: str, value: bytes) -> bytes:
        """The value of a fact, `value` if it had none yet."""
        self._do("add_fact", name, value)
        kept: bytes = self._value("fact", name)
        return kept

    def set_fact(self, name: str, value: bytes | None) -> None:
        """A fact has this value from now on, or none."""
        if value is None:
            self._do("drop_fact", name)
        else:
            self._do("save_fact", name, value)

    def prove(self) -> None:
        """Write test data: readiness promises that writing is possible."""
        self._do("save_fact", "ready", secrets.token_bytes(PROOF))
