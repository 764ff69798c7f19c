"""Redis beneath the rules: plain readings, and one script for all that an act has changed."""

from __future__ import annotations

import asyncio
import heapq
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from turnwise.stores import rules
from turnwise.stores.claim import AFFINITY
from turnwise.stores.driver import Attempt, Driver, Lost
from turnwise.stores.header import Header, Index, readable
from turnwise.stores.notices import Ready, Signal
from turnwise.stores.redis.keys import (
    PLACES,
    Names,
    decoded,
    encoded,
    pack,
    pack_place,
)
from turnwise.stores.redis.link import Link, Script
from turnwise.stores.redis.pages import Pages
from turnwise.stores.redis.routes import Routes
from turnwise.stores.rows import ENDED, Entry
from turnwise.stores.rules import STATES, Ask, Changes, Rule
from turnwise.stores.steady_clock import ServerClock

T = TypeVar("T")
FULL_LOOK = 0.4
"""Seconds after which a worker looks for work in all partitions, announced or not."""
MOMENT = 1.4
"""Seconds until a reading gives up that finds another header each time."""
COMMIT, TAKE, PROVE = Script("commit"), Script("take"), Script("prove")
NO_INDEX = Index(None, None, None, None, 0.0)


class RedisDriver(Driver):
    """The store's data behind `links`, one for each partition. `shift()` is added to the clock."""

    def __init__(
        self,
        routes: Routes,
        names: Names,
        links: Sequence[Link],
        publish: str,
        shift: Callable[[], float] | None,
    ) -> None:
        self._routes = routes
        self.names = names
        self.links = links
        self.clock = ServerClock(shift)
        self.origin = secrets.randbits(31)
        self._publish = publish
        self._hinted: set[int] = set()
        self._full_look = 0.0

    def close(self) -> None:
        """Disconnect."""
        for link in self.links:
            link.close()

    def of(self, session: str) -> tuple[Link, bytes, bytes]:
        """A session's link, the base of its keys, and its id."""
        number = self.names.partition(session)
        return self.links[number], self.names.bases[number], encoded(session)

    async def each(self, asked: Callable[[Link, bytes], Awaitable[T]]) -> list[T]:
        """What the partitions answer; raises Lost if none does."""
        return await those_that_answer(map(asked, self.links, self.names.bases))

    @property
    def incarnation(self) -> int:  # type: ignore[override]
        return self._routes.doubts

    # Time

    async def set_clock(self) -> None:
        """Measure how far the server's clock is from ours."""
        asked = time.time()
        ((seconds, micros),) = await self.links[0].call(("TIME",))
        self.clock.set(int(seconds) + int(micros) / 1e6, asked)

    def now(self) -> float:
        return self.clock()

    # Reading

    async def read(
        self, session: str, asks: Sequence[Ask], *, header: bool
    ) -> tuple[bytes | None, Sequence[Any]]:
        link, base, id = self.of(session)
        return await Pages(link, base, id).read(asks)

    async def at_one_moment(self, session: str, make: Callable[[], Rule]) -> Any:
        """Redis has no snapshots: it reads until nothing has changed meanwhile."""
        until = time.monotonic() + MOMENT
        while time.monotonic() < until:
            attempt = Attempt(self, session, None)
            changes = await attempt.run(make())
            if await attempt.same():
                return changes.answer
        raise Lost("the session changes too fast to be read", sent=False)

    # Writing

    async def commit(self, session: str, changes: Changes, body: bytes) -> bool:
        link, _, id = self.of(session)
        args = _arguments(id, changes, body, self._publish, self.origin, self.now())
        return bool(await link.run(COMMIT, *args))

    async def forget_memory(self, session: str, upto: int) -> None:
        link, base, id = self.of(session)
        await link.call(("XTRIM", base + b"m:" + id, "MINID", upto + 1), writes=True)

    async def drop(self, session: str) -> None:
        """Forget a session that is found by its indexes, but of which there is nothing more."""
        link, _, id = self.of(session)
        nothing = ["", "", "", "gone", *[""] * 5, 0, ""]
        await link.run(COMMIT, id, *nothing, self._publish, self.origin, "", "", "", 0, 0)

    async def prove(self, proof: str) -> None:
        """Write something in every partition. Raises Lost."""
        await asyncio.gather(*(link.run(PROVE, self._publish, proof) for link in self.links))

    async def confirm(self, session: str) -> None:
        link, base, _ = self.of(session)
        await link.call(("SET", base + b"proof", "1", "PX", 60_000), writes=True)

    # Finding work

    def hint(self, number: int) -> None:
        """There may be a turn that waits for a worker in this partition."""
        self._hinted.add(number)

    async def lapsed(self) -> list[str]:
        now = self.now()
        if now - self._full_look <= FULL_LOOK:
            return []
        self._full_look = now
        self._hinted.update(range(self.names.partitions))
        return await self._due(b"leases", 100)

    async def expired(self, limit: int) -> list[str]:
        """Sessions whose life has ended."""
        return await self._due(b"expiry", limit)

    async def _due(self, index: bytes, limit: int) -> list[str]:
        async def ask(link: Link, base: bytes) -> list[bytes]:
            due = ("ZRANGEBYSCORE", base + index, "-inf", self.now(), "LIMIT", 0, limit)
            (found,) = await link.call(due)
            return list(found)

        return [decoded(id) for some in await self.each(ask) for id in some]

    async def take(self, worker: str, limit: int) -> list[str]:
        numbers, self._hinted = sorted(self._hinted), set()
        shares = {number: limit for number in numbers}
        if len(numbers) > 1:
            # The longest waiting session comes first, in whichever partition it is.
            some = await those_that_answer(self._waiting(number, limit) for number in numbers)
            every = [pair for pairs in some for pair in pairs]
            shares = Counter(number for _, number in heapq.nsmallest(limit, every))
            if len(every) > limit:
                self._hinted.update(number for _, number in every)
        taken = await those_that_answer(
            self._take(number, worker, share) for number, share in shares.items()
        )
        return [decoded(id) for _, id in sorted(pair for pairs in taken for pair in pairs)]

    async def _waiting(self, number: int, limit: int) -> list[tuple[float, int]]:
        base, until = self.names.bases[number], self.now() + AFFINITY
        look = ("ZRANGEBYSCORE", base + b"ready", "-inf", until, "WITHSCORES", "LIMIT", 0, limit)
        (found,) = await self.links[number].call(look)
        return [(float(since), number) for since in found[1::2]]

    async def _take(self, number: int, worker: str, limit: int) -> list[tuple[float, bytes]]:
        found = await self.links[number].run(TAKE, worker, limit, self.now(), AFFINITY)
        if len(found) == 2 * limit:  # there may be more
            self._hinted.add(number)
        return [(float(since), id) for id, since in zip(found[::2], found[1::2], strict=True)]

    async def give_back(self, sessions: Sequence[str]) -> None:
        await asyncio.gather(*map(self._give_back, sessions))

    async def _give_back(self, session: str) -> None:
        link, base, id = self.of(session)
        (body,) = await link.call(("HGET", base + b"h:" + id, "h"))
        header = readable(body)
        ready = None if header is None else rules.index(header).ready
        if ready is not None:
            await link.call(("ZADD", base + b"ready", "XX", ready, id), writes=True)

    async def waiting(self) -> int:
        """The number of sessions that are ready."""

        async def ask(link: Link, base: bytes) -> int:
            (found,) = await link.call(("ZCARD", base + b"ready"))
            return int(found)

        return sum(await self.each(ask))

    async def listed(self, start: str, limit: int) -> list[str]:
        """Ids of sessions that have not expired, in order."""

        async def ask(link: Link, base: bytes) -> list[bytes]:
            found: list[bytes] = []
            last = encoded(start)
            while len(found) < limit:
                first = b"(" + last if last else "-"
                look = ("ZRANGEBYLEX", base + b"ids", first, "+", "LIMIT", 0, limit)
                (page,) = await link.call(look)
                found += await self._alive(link, base, page)
                if len(page) < limit:
                    break
                last = page[-1]
            return found[:limit]

        every = heapq.merge(*await self.each(ask))
        return [decoded(id) for id, _ in zip(every, range(limit), strict=False)]

    async def _alive(self, link: Link, base: bytes, ids: Sequence[bytes]) -> list[bytes]:
        headers = await link.call(*(("HGET", base + b"h:" + id, "h") for id in ids)) if ids else []
        now = self.now()
        return [id for id, body in zip(ids, headers, strict=True) if rules.listed(body, now)]

    async def headers(self, sessions: Sequence[str]) -> list[bytes | None]:
        """The headers of these sessions, which are all in one partition."""
        asked = []
        for session in sessions:
            link, base, id = self.of(session)
            asked.append(("HGET", base + b"h:" + id, "h"))
        return await link.call(*asked) if asked else []


async def those_that_answer(asked: Iterable[Awaitable[T]]) -> list[T]:
    """The results of the partitions that answer; raises Lost if none does."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    good: list[T] = []
    for result in found:
        if not isinstance(result, BaseException):
            good.append(result)
        elif not isinstance(result, Lost) or len(found) == 1:
            raise result
    if found and not good:
        raise Lost("no partition answers", sent=True)
    return good


def _arguments(
    id: bytes, changes: Changes, body: bytes, publish: str, origin: int, now: float
) -> list[Any]:
    """The arguments of the script that commits an act."""
    header = changes.header
    assert header is not None
    was, is_ = changes.was or NO_INDEX, rules.index(header)
    signal = next((n for n in changes.notices if isinstance(n, Signal)), None)
    ready = any(isinstance(n, Ready) for n in changes.notices)
    fields: list[Any] = []
    if changes.fresh:
        fields += ("b", header.version)
        was = NO_INDEX
    for key, value in changes.keys:
        fields += (b"k" + encoded(key), value)
    for name, part in changes.parts.items():
        fields += ("p" + name, part)
    return [
        id,
        changes.last_version or "",
        header.version,
        body,
        "gone" if changes.delete else "new" if changes.fresh else "",
        _changed(was.ready, is_.ready),
        _changed(was.lease, is_.lease),
        _changed(was.expires, is_.expires),
        _changed(was.keeper, is_.keeper),
        header.base_event if changes.erase else "",
        2 * len(changes.states),
        header.states - STATES if changes.states else "",
        publish,
        origin,
        b"%s\n%d\n%s" % (signal.kind.encode(), signal.turn, id) if signal is not None else "",
        ("keeper" if is_.keeper else "any") if ready else "",
        "1" if any(entry.kind not in "om" for entry in changes.entries) else "",
        now,
        len(fields),
        *fields,
        *(value for pair in changes.states.items() for value in pair),
        *_entries(header, changes.entries),
    ]


def _changed(was: Any, is_: Any) -> Any:
    return "" if was == is_ else "-" if is_ is None else is_


def _entries(header: Header, entries: Sequence[Entry]) -> Iterable[Any]:
    for i, entry in enumerate(entries):
        stream = entry.kind if entry.kind in "dm" else "e"
        place = b"%d-%d" % (entry.last, header.count * PLACES + i)
        if stream == "m":
            place = b"%d-0" % (entry.seq or 0)
        yield from (stream, place, pack(entry))
        if entry.kind == "q":
            yield from (f"t{entry.turn}", "")
        elif entry.kind in ENDED:
            yield from (f"t{entry.turn}", pack_place(place, entry))
        else:
            yield from ("", "")
