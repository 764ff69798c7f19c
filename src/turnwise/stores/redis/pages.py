"""Pages: the answers to what a rule asks of one session in Redis.

The first trip asks for all that stands under a known name; only what is found by way of something
else takes a second. Turns have numbers without gaps, so they are found by counting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from turnwise.stores.header import Header
from turnwise.stores.redis.keys import Place, decoded, encoded, unpack, unpack_turn
from turnwise.stores.redis.link import Link
from turnwise.stores.rows import ACCEPTED, Entry, head_of
from turnwise.stores.rules import Ask

PROBES = 64
"""Turns that are looked at at once to find the one with a given message."""
EVENTS = 200
"""Maximum number of events of a turn's acceptance: its message, its start, and the asks that
it closes."""
PAGE = 256
"""Turns that are looked up at once."""


class Pages:
    """One session's data: keys begin with `base`, and end with its `id`. `tally` counts an owner's
    turns."""

    def __init__(
        self,
        link: Link,
        base: bytes,
        id: bytes,
        tally: Callable[[str], Awaitable[tuple[int, int]]],
    ) -> None:
        self._link, self._tally = link, tally
        self._h, self._s = base + b"h:" + id, base + b"s:" + id
        self._e, self._d = base + b"e:" + id, base + b"d:" + id
        self._m = base + b"m:" + id

    async def read(self, asks: Sequence[Ask]) -> tuple[bytes | None, Sequence[Any]]:
        """The header, and the answers to some asks. Raises Lost."""
        fields: list[Any] = ["h"]
        commands: list[tuple[Any, ...]] = []
        for ask in asks:
            match ask:
                case "key", key:
                    fields.append(b"k" + encoded(key))
                case "part", name:
                    fields.append("p" + name)
                case ("horizon",):
                    fields.append("z")
                case ("turn", n) | ("open", n, 1):
                    fields.append(f"t{n}")
                case "state", number:
                    commands.append(("HGET", self._s, number))
                case "memory", after, before, limit, False:
                    span = after + 1, f"({before}-0"
                    commands.append(("XRANGE", self._m, *span, "COUNT", limit))
                case "memory", after, before, limit, True:
                    span = f"({before}-0", after + 1
                    commands.append(("XREVRANGE", self._m, *span, "COUNT", limit))
                case "log", first, limit:
                    commands.append(("XRANGE", self._e, first, "+", "COUNT", limit))
                    commands.append(("XRANGE", self._d, first, "+", "COUNT", limit))
        (body, *values), *rows = await self._link.call(("HMGET", self._h, *fields), *commands)
        answers = [await self._answer(ask, body, values, rows) for ask in asks]
        return body, answers

    async def _answer(
        self, ask: Ask, body: bytes | None, values: list[Any], rows: list[Any]
    ) -> Any:
        """The answer to one ask, from what the first trip has brought, in its order."""
        match ask:
            case ("key", _) | ("part", _):
                return values.pop(0)
            case ("horizon",):
                return int(values.pop(0) or 0)
            case "state", _:
                return rows.pop(0)
            case ("keys",):
                return await self._fields("k")
            case ("parts",):
                return await self._fields("p")
            case "tally", owner:
                return await self._tally(owner)
            case "turn", _:
                return await self._turn(values.pop(0))
            case "open", first, limit:
                return await self._open(first, limit, body, values)
            case "memory", _, _, _, latest:
                found = [unpack(fields[1]) for _, fields in rows.pop(0)]
                return found[::-1] if latest else found
            case "log", _, limit:
                return _merged(rows.pop(0), rows.pop(0), limit)
            case "ended", after, before, kinds, limit, latest:
                return await self._ended(body, after, before, kinds, limit, latest)
            case "messages", after, before, limit, latest:
                return await self._messages(body, after, before, limit, latest)
        raise ValueError(ask)

    async def _fields(self, first: str) -> list[tuple[str, bytes]]:
        """The fields of the header's hash whose names begin so, without that, and their values."""
        found: dict[bytes, bytes] = {}
        cursor: Any = 0
        while True:
            ((cursor, page),) = await self._link.call(
                ("HSCAN", self._h, cursor, "MATCH", f"{first}*", "COUNT", PAGE)
            )
            found |= zip(page[::2], page[1::2], strict=True)
            if not int(cursor):
                return sorted((decoded(field[1:]), value) for field, value in found.items())

    async def _turn(self, value: bytes | None) -> list[Entry]:
        """The entries of acceptance and end of a turn of which this is kept."""
        if value is None:
            return []
        kept = unpack_turn(value)
        if isinstance(kept, Entry):
            return [kept]
        ends = await self._entries([kept])
        if not ends:
            return []
        turn, first = ends[0].turn, head_of(ends[0])[6]
        # Its acceptance has a few events, of which the first is known.
        (rows,) = await self._link.call(("XRANGE", self._e, first, first + EVENTS))
        begun = [unpack(fields[1]) for _, fields in rows]
        return [*(e for e in begun if e.kind == "q" and e.turn == turn), *ends]

    async def _open(
        self, first: int, limit: int | None, body: bytes | None, values: list[Any]
    ) -> list[Entry]:
        if limit == 1 and (value := values.pop(0)) is not None:
            kept = unpack_turn(value)
            if isinstance(kept, Entry) and kept.kind in ACCEPTED:
                return [kept]
        header = None if body is None else Header.decode(body)
        if header is None or header.head is None:
            return []
        found: list[Entry] = []
        first = max(first, header.head.n)
        async for page in self._turns(first, header.turns, limit or PAGE, latest=False):
            found += [k for _, k in page if isinstance(k, Entry) and k.kind in ACCEPTED]
            if limit is not None and len(found) >= limit:
                break
        return found[:limit]

    async def _turns(
        self, first: int, last: int, limit: int, *, latest: bool
    ) -> AsyncIterator[list[tuple[int, Entry | Place]]]:
        """What is kept of the turns from `first` to `last` (or back), a page at a time."""
        numbers = range(first, last + 1)[:: -1 if latest else 1]
        size = max(8, min(limit, PAGE))
        for start in range(0, len(numbers), size):
            yield await self._kept(numbers[start : start + size])

    async def _kept(self, numbers: Sequence[int]) -> list[tuple[int, Entry | Place]]:
        (found,) = await self._link.call(("HMGET", self._h, *(f"t{n}" for n in numbers)))
        return [
            (n, unpack_turn(value))
            for n, value in zip(numbers, found, strict=True)
            if value is not None
        ]

    async def _entries(self, places: Sequence[Place]) -> list[Entry]:
        """The entries at these places; one that was removed meanwhile is missing."""
        if not places:
            return []
        found = await self._link.call(*(("XRANGE", self._e, p.id, p.id) for p in places))
        return [unpack(rows[0][1][1]) for rows in found if rows]

    async def _ended(
        self, body: bytes | None, after: int, before: int, kinds: str, limit: int, latest: bool
    ) -> list[Entry]:
        """Ended turns of some kinds with after < n < before, in order."""
        header = None if body is None else Header.decode(body)
        if header is None:
            return []
        places: list[Place] = []
        last = min(before - 1, header.turns)
        async for page in self._turns(after + 1, last, limit, latest=latest):
            places += [kept for _, kept in page if isinstance(kept, Place) and kept.kind in kinds]
            if len(places) >= limit:
                break
        places = places[:limit]
        return await self._entries(places[::-1] if latest else places)

    async def _messages(
        self, body: bytes | None, after: int, before: int, limit: int, latest: bool
    ) -> list[Entry]:
        """Turns with messages after < seq < before: `limit` turns have enough of them."""
        header = None if body is None else Header.decode(body)
        if header is None:
            return []
        first, last = header.base_turn + 1, header.turns
        if latest and before <= header.seq:
            last = await self._turn_with(before - 1, first, last)
        if not latest and after > header.base_seq:
            first = await self._turn_with(after + 1, first, last)
        places: list[Place] = []
        async for page in self._turns(first, last, limit, latest=latest):
            places += [k for _, k in page if isinstance(k, Place) and _begins(k, before - 1)]
            if len(places) >= limit or (latest and places and _begins(places[-1], after + 1)):
                break
        places = places[:limit]
        return await self._entries(places[::-1] if latest else places)

    async def _turn_with(self, seq: int, low: int, high: int) -> int:
        """The last turn whose messages begin at `seq` or before: numbers of turns and of messages
        rise together."""
        while high - low >= PROBES:
            step = (high - low) // PROBES + 1
            probed = await self._kept(range(low, high + 1, step))
            below = [n for n, kept in probed if isinstance(kept, Place) and _begins(kept, seq)]
            above = [
                n
                for n, kept in probed
                if isinstance(kept, Place) and kept.seq is not None and kept.seq > seq
            ]
            narrowed = max(below, default=low), min(above, default=high)
            if narrowed == (low, high):
                break  # nothing but turns that were withdrawn
            low, high = narrowed
        found = low
        async for page in self._turns(low, high, PAGE, latest=False):
            found = max(
                [found, *(n for n, kept in page if isinstance(kept, Place) and _begins(kept, seq))]
            )
        return found


def _begins(place: Place, seq: int) -> bool:
    return place.seq is not None and place.seq <= seq


def _merged(entries: list[Any], deltas: list[Any], limit: int) -> list[Entry]:
    """Rows of two streams in order of their ids."""
    if not deltas:
        return [unpack(fields[1]) for _, fields in entries]
    if not entries:
        return [unpack(fields[1]) for _, fields in deltas]
    both = [(_order(id), fields[1]) for id, fields in (*entries, *deltas)]
    both.sort()
    return [unpack(value) for _, value in both[:limit]]


def _order(id: bytes) -> tuple[int, int]:
    number, _, place = id.partition(b"-")
    return int(number), int(place)
