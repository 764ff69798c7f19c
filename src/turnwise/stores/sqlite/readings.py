"""Readings of a SQLite connection: how the asks of rules are answered, and what is listed.

The cost of none grows with the conversation: a row by its key, or a page of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import apsw

from turnwise.stores import local, rules
from turnwise.stores.claim import Desk
from turnwise.stores.header import Header
from turnwise.stores.records import Busy, Place, is_many
from turnwise.stores.rows import Entry
from turnwise.stores.rules import Ask, Shows


class SQLiteReadings(local.Readings):
    """Readings on one connection."""

    def __init__(
        self, db: apsw.Connection, sql: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        super().__init__(clock)
        self._execute = db.execute
        self._sql = sql
        self._num = 0
        """The number of the session whose header was read last."""

    def _one(self, name: str, *values: Any) -> Any:
        return self._execute(self._sql[name], values).fetchone()

    def _value(self, name: str, *values: Any) -> Any:
        found = self._execute(self._sql[name], values).fetchone()
        return None if found is None else found[0]

    def _all(self, name: str, *values: Any) -> list[Any]:
        return self._execute(self._sql[name], values).fetchall()

    def header(self, session: str) -> Header | None:
        found = self._one("header", session)
        if found is None:
            self._num = 0
            return None
        self._num = found[0]
        return Header.decode(found[1])

    def answer(self, session: str, ask: Ask) -> Any:
        kind, *values = ask
        match kind:
            case "key" | "state" | "part":
                return self._value(kind, self._num, *values)
            case "horizon":
                return self._value(kind, self._num) or 0
            case "tally":
                return tuple(map(int, self._one("tally", *values)))
            case "parts":
                return self._all("parts", self._num)
            case "keys":
                return self._all(kind, self._num)
            case "open":
                first, limit = values
                return self._entries("open", first, -1 if limit is None else limit)
            case "ended":
                after, before, kinds, limit, latest = values
                return self._page("ended", latest, after, before, kinds, limit)
            case "memory":
                after, before, limit, latest = values
                return self._page("memory", latest, after, before, limit)
            case "messages":
                after, before, limit, latest = values
                first, end = self._turn_with(after + 1), self._turn_with(before - 1) + 1
                return self._page("messages", latest, first, end, limit)
            case _:
                return self._entries(kind, *values)

    def _entries(self, name: str, *values: Any) -> list[Entry]:
        return [Entry(*row) for row in self._execute(self._sql[name], (self._num, *values))]

    def _page(self, name: str, latest: bool, *values: Any) -> list[Entry]:
        found = self._entries(f"{name}_latest" if latest else name, *values)
        return found[::-1] if latest else found

    def _turn_with(self, seq: int) -> int:
        """The last turn whose messages begin at `seq` or before: numbers of turns and of messages
        rise together, so halving finds it without an index of its own."""
        low, high = 0, self._value("last_turn", self._num) or 0
        while low < high:
            middle = (low + high + 1) // 2
            found = self._one("seq_from", self._num, middle)
            if found is None or found[1] > seq:
                high = middle - 1
            else:
                low = found[0]
        return low

    # Sessions that wait for something

    def ready(self, worker: str, limit: int) -> list[str]:
        """Sessions that `worker` may take, in order of the line, and those that are due."""
        now = self.now()
        due = [name for (name,) in self._all("due", now, limit)]
        return [*due, *(name for (name,) in self._all("ready", now, worker, limit))][:limit]

    def allowed(self, desk: Desk, limit: int) -> list[str]:
        """The same, without sessions of an owner of whose turns enough are running."""
        most = desk.owner_limit
        if most is None:
            return self.ready(desk.worker, limit)
        now = self.now()
        due = [name for (name,) in self._all("due", now, limit)]
        line = self._all("ready_limited", now, desk.worker, most, limit)
        return [*due, *(name for (name,) in line)][:limit]

    def lapsed(self) -> list[str]:
        """Sessions whose claims have lapsed."""
        return [name for (name,) in self._all("lapsed", self.now())]

    def orphans(self, process: int) -> list[str]:
        """Sessions that a process holds."""
        return [name for (name,) in self._all("orphans", process)]

    def holders(self) -> list[int]:
        """The processes that hold a claim."""
        return [process for (process,) in self._all("holders")]

    def expired(self, limit: int) -> list[str]:
        """Sessions whose life has ended."""
        return [name for (name,) in self._all("expired", self.now(), limit)]

    def published(self, names: str) -> dict[str, bytes]:
        """The fact with this name, or those whose names begin so."""
        if is_many(names):
            return dict(self._all("facts", names))
        value = self._value("fact", names)
        return {} if value is None else {names: value}

    def busy(self, limit: int) -> list[Busy]:
        """Sessions with open turns: those that run, then those that wait."""
        waiting = [*self._all("line", limit), *self._all("later", limit)]
        found = dict([*self._all("running", limit), *waiting[:limit]])
        every = (rules.busy(name, body) for name, body in found.items())
        return [one for one in every if one is not None]

    def outbox(self, channel: str, limit: int) -> list[str]:
        """Sessions with something to be sent on a channel."""
        return [name for (name,) in self._all("outbox", channel, limit)]

    def failing(self, limit: int) -> list[str]:
        """Sessions of which a turn has failed, the last one first."""
        return [name for (name,) in self._all("failing", limit)]

    def waiting(self) -> int:
        """How many sessions wait for a worker."""
        found: int = self._value("waiting")
        return found

    def owned(self, owner: str, before: Place, limit: int) -> list[tuple[Place, str]]:
        """Sessions of an owner, the last used first: where each stands in the list, and its id."""
        found: list[tuple[Place, str]] = []
        while len(found) < limit:
            page = self._all("owners_sessions", owner, *before, limit)
            now = self.now()
            found += [((used, id), id) for id, used, body in page if rules.listed(body, now)]
            if len(page) < limit:
                break
            before = page[-1][1], page[-1][0]
        return found[:limit]

    def listed(self, start: str, limit: int, shows: Shows = rules.listed) -> list[str]:
        """Ids of sessions that are shown, in order."""
        found: list[str] = []
        while len(found) < limit:
            page = self._all("sessions", start, limit)
            now = self.now()
            found += [name for name, body in page if shows(body, now)]
            if len(page) < limit:
                break
            start = page[-1][0]
        return found[:limit]
