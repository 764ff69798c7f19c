"""PostgreSQL beneath the rules: groups of readings and of commits, each in one statement."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any

from turnwise.batching import Batch, Batcher
from turnwise.stores import rules
from turnwise.stores.claim import Desk
from turnwise.stores.driver import Attempt, Driver, Lost
from turnwise.stores.header import needed_from
from turnwise.stores.postgres.arguments import arguments, columns, decoded, encoded, rare_columns
from turnwise.stores.postgres.connections import Address, Connection
from turnwise.stores.records import Busy, Place
from turnwise.stores.rows import DESCRIBED, Entry, blanked
from turnwise.stores.rules import Ask, Changes, Rule, Shows
from turnwise.stores.steady_clock import ServerClock

GROUP = 128
"""Acts in one statement, at most."""
HELD = 10
"""Leases that are looked at for each turn that may run."""
READERS = 3
"""Connections for readings that are not grouped."""


def _statements(schema: str) -> dict[str, str]:
    text = resources.files(__package__).joinpath("statements.sql").read_text()
    statements = {}
    for part in re.split(r"^-- name: ", text, flags=re.M)[1:]:
        name, body = part.split("\n", 1)
        if name == "commit":
            plain = re.sub(r"-- rare.*?-- end of rare\n", "", body, flags=re.S)
            plain = plain.replace("{place}", "f.place").replace("{places}", "")
            statements["commit_plain"] = _one_line(plain, schema)
            body = body.replace("{places}", "LEFT JOIN b USING (id)")
            body = body.replace("{place}", "coalesce(b.place, f.place)")
        statements[name] = _one_line(body, schema)
    return statements


def _one_line(body: str, schema: str) -> str:
    lines = (line for line in body.splitlines() if not line.lstrip().startswith("--"))
    return " ".join(" ".join(lines).split()).rstrip("; ").replace("{s}", schema)


class PostgresDriver(Driver):
    """The store's data in the schema of `address`. `shift()` is added to the server's clock."""

    def __init__(
        self,
        address: Address,
        *,
        observe: Callable[[Batch], None] | None,
        shift: Callable[[], float] | None,
    ) -> None:
        self.address = address
        self.sql = _statements(address.schema)
        self.clock = ServerClock(shift)
        self.writer = Connection(address)
        self._grouped = Connection(address)
        self._readers = [Connection(address) for _ in range(READERS)]
        self._next = 0
        self._observe = observe
        self.origin = 0
        self.counting = Counter()

    async def open(self) -> None:
        """Know the server's time."""
        self.origin = secrets.randbits(31)
        self._reads: Batcher[Any, Any] = Batcher(self._read_group, max_size=GROUP)
        self._commits: Batcher[Any, Any] = Batcher(
            self._commit_group, max_size=GROUP, observe=self._observe
        )
        await self.set_clock()

    async def close(self) -> None:
        """Finish what is pending, and disconnect."""
        await self._commits.aclose()
        await self._reads.aclose()
        for connection in (self.writer, self._grouped, *self._readers):
            await connection.close()

    # Time

    async def set_clock(self) -> None:
        """Measure how far the server's clock is from ours."""
        asked = time.time()
        ((there,),) = await self._grouped.fetch(self.sql["time"])
        self.clock.set(there, asked)

    def now(self) -> float:
        return self.clock()

    @property
    def incarnation(self) -> int:  # type: ignore[override]
        return self.address.doubts

    # Reading

    async def read(
        self, session: str, asks: Sequence[Ask], *, header: bool
    ) -> tuple[bytes | None, Sequence[Any]]:
        id = encoded(session)
        key = next((encoded(ask[1]) for ask in asks if ask[0] == "key"), None)
        row = None
        if header or key is not None:
            row = await self._row(id, key)
        answers = [await self._answer(id, ask, row) for ask in asks]
        return (None if row is None else row[2]), answers

    async def _row(self, id: bytes, key: bytes | None) -> Any:
        """What the group's statement reads of a session."""
        return await self._reads.submit((id, key))

    async def _read_group(self, wanted: list[Any]) -> list[Any]:
        """One statement for all readings that wait."""
        numbers = list(range(len(wanted)))
        ids, keys = [id for id, _ in wanted], [key for _, key in wanted]
        try:
            rows = await self._grouped.fetch(self.sql["read"], numbers, ids, keys)
        except Lost as error:
            return [error] * len(wanted)
        found = {row[0]: row for row in rows}
        return [found.get(number) for number in numbers]

    async def _answer(self, id: bytes, ask: Ask, row: Any) -> Any:
        kind, *values = ask
        match kind:
            case "key":
                return None if row is None else row[3]
            case "part" if row is not None and values[0] == DESCRIBED:
                return row[4]
            case "state" | "part":
                return await self.value(kind, id, *values)
            case "horizon":
                return await self.value("horizon", id) or 0
            case "parts":
                return [(name, value) for name, value in await self.fetch("parts", id)]
            case "tally":
                ((waiting, running),) = await self.fetch("tally", encoded(values[0]))
                return int(waiting), int(running)
            case "keys":
                return [(decoded(key), value) for key, value in await self.fetch("keys", id)]
            case "ended":
                after, before, kinds, limit, latest = values
                return await self._page("ended", latest, id, after, before, kinds, limit)
            case "memory":
                after, before, limit, latest = values
                return await self._page("memory", latest, id, after, before, limit)
            case "messages":
                after, before, limit, latest = values
                first = await self._turn_with(id, after + 1)
                end = await self._turn_with(id, before - 1) + 1
                return await self._page("messages", latest, id, first, end, limit)
            case _:
                return await self._entries(kind, id, *values)

    async def fetch(self, name: str, *values: Any) -> list[Any]:
        """The rows of a named statement, on one of the connections for readings."""
        self._next = (self._next + 1) % READERS
        return await self._readers[self._next].fetch(self.sql[name], *values)

    async def value(self, name: str, *values: Any) -> Any:
        """The only value of the only row, or None."""
        rows = await self.fetch(name, *values)
        return rows[0][0] if rows else None

    async def _entries(self, name: str, *values: Any) -> list[Entry]:
        return [Entry(*row) for row in await self.fetch(name, *values)]

    async def _page(self, name: str, latest: bool, *values: Any) -> list[Entry]:
        found = await self._entries(f"{name}_latest" if latest else name, *values)
        return found[::-1] if latest else found

    async def _turn_with(self, id: bytes, seq: int) -> int:
        """The last turn whose messages begin at `seq` or before, by halving: numbers of turns and
        of messages rise together."""
        low, high = 0, await self.value("last_turn", id) or 0
        newest = await self.fetch("seq_from", id, high)
        if newest and newest[0][1] <= seq:
            return int(newest[0][0])
        while low < high:
            middle = (low + high + 1) // 2
            found = await self.fetch("seq_from", id, middle)
            if not found or found[0][1] > seq:
                high = middle - 1
            else:
                low = found[0][0]
        return low

    async def at_one_moment(self, session: str, make: Callable[[], Rule]) -> Any:
        connection = Connection(self.address)
        async with connection.snapshot() as fetch:
            changes = await Attempt(_Snapshot(self, fetch), session, None).run(make())
        assert changes is not None  # a snapshot is one moment
        return changes.answer

    # Writing

    async def commit(self, session: str, changes: Changes, body: bytes) -> bool:
        id = encoded(session)
        if changes.delete or (changes.fresh and changes.last_version is not None):
            removed = await self.writer.fetch(self.sql["delete"], id, changes.last_version)
            if changes.delete or not removed:
                return bool(removed)
            changes.last_version = None
        done_alone: bool = await self._commits.submit((id, changes, body))
        return done_alone

    async def _commit_group(self, acts: list[Any]) -> list[Any]:
        """One statement, one commit and one wait for the disk for all acts that wait."""
        try:
            common, rare = arguments(acts, self.now())
            if any(rare):
                rows = await self.writer.fetch(self.sql["commit"], *common, *rare_columns(*rare))
            else:
                rows = await self.writer.fetch(self.sql["commit_plain"], *common)
        except Lost as error:
            return [error] * len(acts)
        done = {row[0] for row in rows}
        return [id in done for id, _, _ in acts]

    async def forget_memory(self, session: str, upto: int) -> None:
        await self.writer.fetch(self.sql["forget_memory"], encoded(session), upto)

    # Finding work

    async def take(self, desk: Desk, limit: int) -> list[str]:
        now, rows = self.now(), []
        ((ready, due),) = await self.fetch("any_ready", desk.worker, now)
        if due:
            rows = await self.writer.fetch(self.sql["take_due"], now, limit)
        if ready and len(rows) < limit:  # otherwise no write: every idle worker asks twice a second
            wanted = (desk.worker, now, limit - len(rows))
            if desk.owner_limit is None:
                rows += await self.writer.fetch(self.sql["take"], *wanted)
            else:
                limited = self.sql["take_limited"]
                rows += await self.writer.fetch(limited, *wanted, desk.owner_limit)
        return [decoded(row[0]) for row in sorted(rows, key=lambda row: tuple(row[1:]))]

    async def give_back(self, sessions: Sequence[str]) -> None:
        await self.writer.fetch(self.sql["give_back"], [encoded(name) for name in sessions])

    async def lapsed(self) -> list[str]:
        return [decoded(id) for (id,) in await self.fetch("lapsed", self.now())]

    async def expired(self, limit: int) -> list[str]:
        """Sessions whose life has ended."""
        return [decoded(id) for (id,) in await self.fetch("expired", self.now(), limit)]

    async def owned(self, owner: str, before: Place | None, limit: int) -> list[str]:
        """Ids of an owner's sessions that have not expired, the last used first."""
        found: list[str] = []
        used, id = (math.inf, b"") if before is None else (before[0], encoded(before[1]))
        while len(found) < limit:
            page = await self.fetch("owners_sessions", encoded(owner), used, id, limit)
            now = self.now()
            found += [decoded(row[0]) for row in page if rules.listed(row[2], now)]
            if len(page) < limit:
                break
            id, used, _ = page[-1]
        return found[:limit]

    async def listed(self, start: str, limit: int, shows: Shows = rules.listed) -> list[str]:
        """Ids of sessions that are shown, in order."""
        found: list[str] = []
        after = encoded(start)
        while len(found) < limit:
            page = await self.fetch("sessions", after, limit)
            now = self.now()
            found += [decoded(id) for id, body in page if shows(body, now)]
            if len(page) < limit:
                break
            after = page[-1][0]
        return found[:limit]

    async def busy(self, limit: int) -> list[Busy]:
        """Sessions with open turns: those that run, then those that wait."""
        # Many of these leases are of turns that have ended; see `look` in schema.sql.
        held = await self.fetch("running", limit * HELD)
        line, later = await self.fetch("line", limit), await self.fetch("later", limit)
        every = [rules.busy(decoded(id), body) for id, body in held]
        running = [one for one in every if one is not None and one.status == "running"]
        every = [rules.busy(decoded(id), body) for id, body in (*line, *later)]
        waiting = [one for one in every if one is not None and one.status != "running"]
        return [*running[:limit], *waiting[:limit]]

    async def versions(self, sessions: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """The versions and headers of those of these sessions that exist."""
        rows = await self.fetch("versions", [encoded(session) for session in sessions])
        return {decoded(id): (version, body) for id, version, body in rows}

    # Housekeeping

    async def trim(self, cutoff: float, start: float, limit: int) -> float | None:
        """Remove a slice of what attempts wrote before `cutoff`, but nothing of an open turn.

        Returns from when on the next slice starts, or None after the last.
        """
        rows = await self.fetch("old_entries", cutoff, start, limit)
        doomed = []
        for num, last, pos, _, body in rows:
            if last < needed_from(body):
                doomed.append((num, last, pos))
        if doomed:
            await self.writer.fetch(self.sql["trim"], *map(list, zip(*doomed, strict=True)))
        if len(rows) < limit:
            return None
        latest: float = rows[-1][3]
        return latest if latest > start or doomed else latest + 0.001

    async def erase(self, limit: int) -> bool:
        """Remove a slice of what was deleted; returns whether there may be more."""
        rows = await self.fetch("erasing")
        if not rows:
            return False
        num, last = rows[0]
        more = await (
            self._erase_all(num, limit) if last is None else self._empty(num, last, limit)
        )
        if not more:
            await self.writer.fetch(self.sql["erased"], num, last)
        return True

    async def _erase_all(self, num: int, limit: int) -> bool:
        gone = [
            await self.writer.fetch(self.sql[name] + " RETURNING num", num, limit)
            for name in ("erase_entries", "erase_keys")
        ]
        await self.writer.fetch(self.sql["erase_rest"], num)
        return any(len(rows) == limit for rows in gone)

    async def _empty(self, num: int, last: int, limit: int) -> bool:
        """What a reset removed; of turns with a key it stays how they ended."""
        rows = await self.fetch("emptied", num, last, limit)
        gone: list[int] = []
        blank: list[tuple[Any, ...]] = []
        for pos, *values in rows:
            left = blanked(Entry(*values))
            if left is None:
                gone.append(pos)
            else:
                blank.append((pos, left.kind, left.body))
        if rows:
            await self.writer.fetch(self.sql["empty"], num, gone, *columns(blank, 3))
        return len(rows) == limit


class _Snapshot(PostgresDriver):
    """The readings of a driver at one moment."""

    def __init__(self, driver: PostgresDriver, fetch: Callable[..., Awaitable[list[Any]]]) -> None:
        self.sql = driver.sql
        self.now = driver.now  # type: ignore[method-assign]
        self._fetch = fetch

    async def fetch(self, name: str, *values: Any) -> list[Any]:
        return await self._fetch(self.sql[name], *values)

    async def _row(self, id: bytes, key: bytes | None) -> Any:
        rows = await self.fetch("read", [0], [id], [key])
        return rows[0] if rows else None
