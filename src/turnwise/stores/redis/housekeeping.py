"""Housekeeping: what retention removes, and what a reset has left, in slices."""

from __future__ import annotations

from typing import Any

from turnwise.stores.header import needed_from
from turnwise.stores.redis.driver import RedisDriver
from turnwise.stores.redis.keys import pack, unpack
from turnwise.stores.redis.link import Link, Script
from turnwise.stores.rows import ENDED, blanked

CLEAN = Script("clean")
SLICE = 500
"""Entries in one slice."""


class Housekeeping:
    """The slow removals of a store."""

    def __init__(self, driver: RedisDriver) -> None:
        self._driver = driver

    async def trim(self, cutoff: float) -> None:
        """Remove what attempts wrote before `cutoff`, but nothing of an open turn."""

        async def one(link: Link, base: bytes) -> None:
            look = ("ZRANGEBYSCORE", base + b"trim", "-inf", f"({cutoff!r}", "LIMIT", 0, SLICE)
            while True:
                (found,) = await link.call(look)
                for id in found:
                    await self._trim(link, base, id, cutoff)
                if len(found) < SLICE:
                    return

        await self._driver.each(one)

    async def _trim(self, link: Link, base: bytes, id: bytes, cutoff: float) -> None:
        more = True
        while more:
            (body, birth), rows = await link.call(
                ("HMGET", base + b"h:" + id, "h", "b"),
                ("XRANGE", base + b"d:" + id, "-", "+", "COUNT", SLICE),
            )
            if body is None:
                await link.call(("ZREM", base + b"trim", id), writes=True)
                return
            upto = 0
            for _, fields in rows:
                entry = unpack(fields[1])
                if entry.last >= needed_from(body) or (entry.at or 0.0) >= cutoff:
                    break
                upto = entry.last
            more = bool(upto) and len(rows) == SLICE and upto == unpack(rows[-1][1][1]).last
            await self._clean(link, id, birth, deltas=upto + 1 if upto else "", horizon=upto or "",
                              again=0 if more else cutoff + 1)  # fmt: skip

    async def erase(self) -> None:
        """Remove what resets have emptied; of turns with a key it stays how they ended."""

        async def one(link: Link, base: bytes) -> None:
            while True:
                (found,) = await link.call(("HRANDFIELD", base + b"erasing", 1, "WITHVALUES"))
                if not found:
                    return
                await self._erase(link, base, found[0], int(found[1]))

        await self._driver.each(one)

    async def _erase(self, link: Link, base: bytes, id: bytes, upto: int) -> None:
        """A slice of one session."""
        birth, rows = await link.call(
            ("HGET", base + b"h:" + id, "b"),
            ("XRANGE", base + b"e:" + id, "-", upto, "COUNT", SLICE),
        )
        left: list[Any] = []
        gone: list[str] = []
        for _, fields in rows:
            entry = unpack(fields[1])
            if entry.kind in ENDED:
                blank = blanked(entry)
                if blank is None:
                    gone.append(f"t{entry.turn}")
                else:
                    left += (f"t{entry.turn}", pack(blank._replace(at=None)))
        if len(rows) == SLICE:
            number, _, place = rows[-1][0].partition(b"-")
            first: Any = b"%s-%d" % (number, int(place) + 1)
            done = await self._clean(link, id, birth, entries=first, left=left, gone=gone)
        else:
            done = await self._clean(link, id, birth, entries=upto + 1, deltas=upto + 1, left=left,
                                     gone=gone, emptied="1")  # fmt: skip
        if not done:
            await link.call(("HDEL", base + b"erasing", id), writes=True)

    async def _clean(
        self, link: Link, id: bytes, birth: bytes | None, *, deltas: Any = "", entries: Any = "",
        horizon: Any = "", emptied: str = "", again: float = 0, left: Any = (), gone: Any = (),
    ) -> bool:  # fmt: skip
        args = (id, birth or "", deltas, entries, horizon, emptied, again, len(left))
        return bool(await link.run(CLEAN, *args, *left, *gone))
