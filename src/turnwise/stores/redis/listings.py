"""Listings: what is found over all sessions, partition by partition."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from turnwise.stores import rules
from turnwise.stores.driver import Lost
from turnwise.stores.records import Busy, Place
from turnwise.stores.redis.keys import Names, decoded, encoded
from turnwise.stores.redis.link import Link
from turnwise.stores.rules import Shows

T = TypeVar("T")


class Listings:
    """The readings of a driver that concern many sessions."""

    names: Names
    links: Sequence[Link]

    def now(self) -> float:
        raise NotImplementedError

    def of(self, session: str) -> tuple[Link, bytes, bytes]:
        raise NotImplementedError

    async def each(self, asked: Callable[[Link, bytes], Awaitable[T]]) -> list[T]:
        """What the partitions answer; raises Lost if none does."""
        return await those_that_answer(map(asked, self.links, self.names.bases))

    async def waiting(self) -> int:
        """The number of sessions that are ready."""

        async def ask(link: Link, base: bytes) -> int:
            (found,) = await link.call(("ZCARD", base + b"line"))
            return int(found)

        return sum(await self.each(ask))

    async def busy(self, limit: int) -> list[Busy]:
        """Sessions with open turns: those that run, then those that wait."""

        async def ask(link: Link, base: bytes) -> list[Busy]:
            names = (base + b"leases", base + b"line", base + b"later")
            found = await link.call(*(("ZRANGE", name, 0, limit - 1) for name in names))
            ids = list(dict.fromkeys(id for part in found for id in part))
            look = [("HGET", base + b"h:" + id, "h") for id in ids]
            bodies = await link.call(*look) if look else []
            every = (rules.busy(decoded(id), body) for id, body in zip(ids, bodies, strict=True))
            return [one for one in every if one is not None]

        every = [one for part in await self.each(ask) for one in part]
        running = [one for one in every if one.status == "running"]
        waiting = [one for one in every if one.status != "running"]
        return [*running[:limit], *waiting[:limit]]

    async def outbox(self, channel: str, limit: int) -> list[str]:
        """Sessions with something to be sent on a channel, the longest waiting first."""

        async def ask(link: Link, base: bytes) -> list[tuple[float, bytes]]:
            name = base + b"x:" + encoded(channel)
            (rows,) = await link.call(("ZRANGE", name, 0, limit - 1, "WITHSCORES"))
            ids = rows[::2]
            there = (
                await link.call(*(("HGET", base + b"h:" + id, "v") for id in ids)) if ids else []
            )
            gone = [id for id, version in zip(ids, there, strict=True) if version is None]
            if gone:  # evicted, or somebody has deleted its keys
                await link.call(("ZREM", name, *gone), writes=True)
            found = zip(map(float, rows[1::2]), ids, strict=True)
            return [(at, id) for at, id in found if id not in gone]

        every = heapq.merge(*await self.each(ask))
        return [decoded(id) for _, id in itertools.islice(every, limit)]

    async def failing(self, limit: int) -> list[str]:
        """Sessions of which a turn has failed, the last one first."""

        async def ask(link: Link, base: bytes) -> list[tuple[float, bytes]]:
            (rows,) = await link.call(
                (
                    "ZREVRANGEBYSCORE",
                    base + b"failed",
                    "+inf",
                    "-inf",
                    "WITHSCORES",
                    "LIMIT",
                    0,
                    limit,
                )
            )
            return [(-float(at), id) for id, at in zip(rows[::2], rows[1::2], strict=True)]

        every = heapq.merge(*await self.each(ask))
        return [decoded(id) for _, id in itertools.islice(every, limit)]

    async def listed(self, start: str, limit: int, shows: Shows = rules.listed) -> list[str]:
        """Ids of sessions that are shown, in order."""

        async def ask(link: Link, base: bytes) -> list[bytes]:
            found: list[bytes] = []
            last = encoded(start)
            while len(found) < limit:
                first = b"(" + last if last else "-"
                look = ("ZRANGEBYLEX", base + b"ids", first, "+", "LIMIT", 0, limit)
                (page,) = await link.call(look)
                found += await self._alive(link, base, page, shows)
                if len(page) < limit:
                    break
                last = page[-1]
            return found[:limit]

        every = heapq.merge(*await self.each(ask))
        return [decoded(id) for id, _ in zip(every, range(limit), strict=False)]

    async def owned(self, owner: str, before: Place | None, limit: int) -> list[str]:
        """Ids of an owner's sessions that have not expired, the last used first."""
        found: list[str] = []
        while (left := limit - len(found)) > 0:
            page = await self._owners_page(owner, before, left)
            split: defaultdict[int, list[bytes]] = defaultdict(list)
            for _, name in page:
                split[self.names.partition(name)].append(encoded(name))
            asked = (self._alive(self.links[i], self.names.bases[i], split[i]) for i in split)
            alive = {decoded(id) for ids in await asyncio.gather(*asked) for id in ids}
            found += [name for _, name in page if name in alive]
            if len(page) < left:
                break
            before = page[-1]
        return found

    async def _owners_page(self, owner: str, before: Place | None, limit: int) -> list[Place]:
        """An owner's sessions as they stand in all partitions."""
        last = None if before is None else (before[0], encoded(before[1]))

        async def ask(link: Link, base: bytes) -> list[tuple[float, bytes]]:
            found: list[tuple[float, bytes]] = []
            name, top = base + b"o:" + encoded(owner), "+inf" if last is None else last[0]
            skipped = 0
            while len(found) < limit:
                span = (top, "-inf", "WITHSCORES", "LIMIT", skipped, limit)
                (rows,) = await link.call(("ZREVRANGEBYSCORE", name, *span))
                page = [(float(at), id) for id, at in zip(rows[::2], rows[1::2], strict=True)]
                skipped += len(page)
                found += [one for one in page if last is None or one < last]
                if len(page) < limit:
                    break
            return found[:limit]

        every = heapq.merge(*await self.each(ask), reverse=True)
        return [(at, decoded(id)) for at, id in itertools.islice(every, limit)]

    async def _alive(
        self, link: Link, base: bytes, ids: Sequence[bytes], shows: Shows = rules.listed
    ) -> list[bytes]:
        headers = await link.call(*(("HGET", base + b"h:" + id, "h") for id in ids)) if ids else []
        now = self.now()
        return [id for id, body in zip(ids, headers, strict=True) if shows(body, now)]

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
