"""Redis beneath the rules: plain readings, and one script for all that an act has changed."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from turnwise.stores import rules
from turnwise.stores.claim import AFFINITY, Desk
from turnwise.stores.driver import Attempt, Driver, Lost
from turnwise.stores.header import readable
from turnwise.stores.redis.arguments import arguments
from turnwise.stores.redis.keys import Names, decoded, encoded
from turnwise.stores.redis.link import Link, Script
from turnwise.stores.redis.listings import Listings, those_that_answer
from turnwise.stores.redis.pages import Pages
from turnwise.stores.redis.routes import Routes
from turnwise.stores.rules import Ask, Changes, Rule
from turnwise.stores.steady_clock import ServerClock

T = TypeVar("T")
FULL_LOOK = 0.4
"""Seconds after which a worker looks for work in all partitions, announced or not."""
MOMENT = 1.4
"""Seconds until a reading gives up that finds another header each time."""
LOOKED = 64
"""Sessions of a partition that are looked at at once, at least."""
SERVED = 10_000
"""Owners of whom it is known when they were served."""
COMMIT, TAKE, PROVE = Script("commit"), Script("take"), Script("prove")


class Waiting(NamedTuple):
    """A session that is ready: whose it is, its place in the line, since when, and in which
    partition."""

    id: bytes
    owner: bytes | None
    place: float
    since: float
    partition: int


class RedisDriver(Listings, Driver):
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
        self.counting = Counter()
        self._publish = publish
        self._hinted: set[int] = set()
        self._full_look = 0.0
        self.limited = False
        """Whether the workers of this process limit the turns of an owner."""
        self._services = 0
        self._served: dict[bytes, int] = {}
        """When owners were served, in the order in which they were first."""

    def close(self) -> None:
        """Disconnect."""
        for link in self.links:
            link.close()

    def of(self, session: str) -> tuple[Link, bytes, bytes]:
        """A session's link, the base of its keys, and its id."""
        number = self.names.partition(session)
        return self.links[number], self.names.bases[number], encoded(session)

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
        return await Pages(link, base, id, self.tally).read(asks)

    async def tally(self, owner: str) -> tuple[int, int]:
        """How many turns of an owner's sessions are open, and running."""

        async def ask(link: Link, base: bytes) -> list[Any]:
            (found,) = await link.call(("HMGET", base + b"n:" + encoded(owner), "open", "running"))
            return list(found)

        counts = await self.each(ask)
        return tuple(sum(int(one[i] or 0) for one in counts) for i in (0, 1))  # type: ignore[return-value]

    async def at_one_moment(self, session: str, make: Callable[[], Rule]) -> Any:
        """Redis has no snapshots: it reads until nothing has changed meanwhile."""
        until = time.monotonic() + MOMENT
        while time.monotonic() < until:
            changes = await Attempt(self, session, None).run(make())
            if changes is not None:
                return changes.answer
        raise Lost("the session changes too fast to be read", sent=False)

    # Writing

    async def commit(self, session: str, changes: Changes, body: bytes) -> bool:
        link, _, id = self.of(session)
        args = arguments(id, changes, body, self._publish, self.origin, self.now())
        return bool(await link.run(COMMIT, *args))

    async def forget_memory(self, session: str, upto: int) -> None:
        link, base, id = self.of(session)
        await link.call(("XTRIM", base + b"m:" + id, "MINID", upto + 1), writes=True)

    async def drop(self, session: str) -> None:
        """Forget a session that is found by its indexes, but of which there is nothing more."""
        link, _, id = self.of(session)
        nothing = ["", "", "", "gone", *[""] * 5, 0, ""]
        tail = [self._publish, self.origin, "", "", "", 0, *[""] * 8, 0]
        await link.run(COMMIT, id, *nothing, *tail)

    async def prove(self, proof: str) -> None:
        """Write something in every partition. Raises Lost."""
        await asyncio.gather(*(link.run(PROVE, self._publish, proof) for link in self.links))

    async def confirm(self, session: str) -> None:
        link, base, _ = self.of(session)
        await link.call(("SET", base + b"proof", "1", "PX", 60_000), writes=True)

    # Finding work

    def hint_all(self) -> None:
        """An owner may run another turn, in whichever partition it waits."""
        self._hinted.update(range(self.names.partitions))

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

    async def take(self, desk: Desk, limit: int) -> list[str]:
        numbers, self._hinted = sorted(self._hinted), set()
        self.limited = desk.owner_limit is not None
        if len(numbers) <= 1:
            asked = [self._take(number, desk, limit) for number in numbers]
        else:
            chosen: dict[int, list[bytes]] = defaultdict(list)
            for one in await self._next(numbers, desk, limit):
                chosen[one.partition].append(one.id)
            asked = [self._take(number, desk, limit, ids) for number, ids in chosen.items()]
        taken = await those_that_answer(asked)
        return [decoded(id) for _, id in sorted(pair for pairs in taken for pair in pairs)]

    async def _next(self, numbers: Sequence[int], desk: Desk, limit: int) -> list[Waiting]:
        """Which of the sessions of several partitions are next."""
        size = max(limit, LOOKED)
        for first in itertools.count(0, size):
            some = await those_that_answer(self._line(number, first, size) for number in numbers)
            every = [one for found in some for one in found]
            chosen = await self._in_turns(every, desk, limit)
            more = any(len(found) >= size for found in some)
            if len(every) > limit or more:
                self._hinted.update(numbers)
            if chosen or not more:
                return chosen
        raise AssertionError

    async def _line(self, number: int, first: int, size: int) -> list[Waiting]:
        """A part of a partition's line, and what is not in it yet although it is due."""
        link, base, now = self.links[number], self.names.bases[number], self.now()
        line, later, ready = await link.call(
            ("ZRANGE", base + b"line", first, first + size - 1, "WITHSCORES"),
            ("ZRANGEBYSCORE", base + b"later", "-inf", now, "LIMIT", first, size),
            ("ZCARD", base + b"ready"),
        )
        if not line and ready and not first:  # made ready by an older version
            line = [one for id in await self._ready(link, base, now) for one in (id, b"1")]
        places = [
            *zip(line[::2], map(float, line[1::2]), strict=True),
            *((id, 0.0) for id in later),
        ]
        look = [
            command
            for id, _ in places
            for command in (("HGET", base + b"h:" + id, "o"), ("ZSCORE", base + b"ready", id))
        ]
        known = await link.call(*look) if look else []
        return [
            Waiting(id, owner, place, float(since or 0.0), number)
            for (id, place), owner, since in zip(places, known[::2], known[1::2], strict=True)
            if float(since or 0.0) <= now + AFFINITY
        ]

    async def _ready(self, link: Link, base: bytes, now: float) -> list[bytes]:
        due = ("ZRANGEBYSCORE", base + b"ready", "-inf", now, "LIMIT", 0, LOOKED)
        (found,) = await link.call(due)
        return list(found)

    async def _in_turns(self, every: list[Waiting], desk: Desk, limit: int) -> list[Waiting]:
        """The next sessions: one of each owner in turn, first of those whom this process has not
        served for the longest time; see PLACED."""
        every.sort(key=lambda one: (int(one.place), one.since))
        owners = {one.owner for one in every if one.owner is not None}
        ranks: Counter[bytes | None] = Counter()
        if desk.owner_limit is not None:
            for owner in owners:
                ranks[owner] = (await self.tally(decoded(owner)))[1]
        ordered = []
        for one in every:
            ranks[one.owner] += one.owner is not None
            if desk.owner_limit is None or ranks[one.owner] <= desk.owner_limit:
                served = 0 if one.owner is None else self._served.get(one.owner, 0)
                ordered.append((max(1, ranks[one.owner]), served, one))
        ordered.sort(key=lambda place: place[:2])
        chosen = [one for *_, one in ordered[:limit]]
        for one in chosen:
            if one.owner is not None:
                self._services += 1
                self._served[one.owner] = self._services
        while len(self._served) > SERVED:
            del self._served[next(iter(self._served))]
        return chosen

    async def _take(
        self, number: int, desk: Desk, limit: int, ids: Sequence[bytes] = ()
    ) -> list[tuple[float, bytes]]:
        """Take sessions of one partition: these, or those that are next in its line."""
        most = "" if desk.owner_limit is None else desk.owner_limit
        args = (desk.worker, limit, self.now(), AFFINITY, most, *ids)
        found = await self.links[number].run(TAKE, *args)
        if len(found) == 2 * limit:  # there may be more
            self._hinted.add(number)
        return [(float(place), id) for id, place in zip(found[::2], found[1::2], strict=True)]

    async def give_back(self, sessions: Sequence[str]) -> None:
        await asyncio.gather(*map(self._give_back, sessions))

    async def _give_back(self, session: str) -> None:
        link, base, id = self.of(session)
        (body,) = await link.call(("HGET", base + b"h:" + id, "h"))
        header = readable(body)
        ready = None if header is None else rules.index(header).ready
        if ready is not None:
            again = (("ZADD", base + name, "XX", ready, id) for name in (b"ready", b"later"))
            await link.call(*again, writes=True)
