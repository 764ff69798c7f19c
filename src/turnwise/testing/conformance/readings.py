"""Readings: history, turns, the log, and the notices that listeners receive."""

from __future__ import annotations

import asyncio
from typing import Any

from turnwise.stores.base import Store
from turnwise.stores.notices import Appended, Notice
from turnwise.testing.conformance.acting import Acting, answer, delta, desk, texts


class ReadingConformance(Acting):
    """Pages and cursors, and notices."""

    async def test_history_by_pages(self, store: Store) -> None:
        """The latest, those before and those after a seq, and whether there are more."""
        await self.made(store)
        for i in range(5):
            await self.say(store, f"m{i}")
            await store.finish(await self.claimed(store), answer(f"r{i}"))
        latest = await store.history("s", limit=4)
        assert (texts(latest.messages_json), latest.has_more) == (["m3", "r3", "m4", "r4"], True)
        earlier = await store.history("s", before=7, limit=100)
        assert (len(earlier.messages_json), earlier.has_more) == (6, False)
        later = await store.history("s", after=8, limit=100)
        assert (texts(later.messages_json), later.has_more) == (["m4", "r4"], False)

    async def test_following_from_the_histories_cursor(self, store: Store) -> None:
        """In mid-turn the events after the cursor hold the whole answer so far, and no message
        that the history holds already."""
        await self.made(store)
        await self.say(store, "one")
        first = await self.claimed(store)
        await self.say(store, "two")
        outcome = answer("1")
        outcome.next_desk = desk()
        second = await store.finish(first, outcome)
        assert second is not None
        await store.append(second, [delta(2, 1, "par"), delta(2, 1, "tial")])
        history = await store.history("s")
        assert texts(history.messages_json) == ["one", "1"]
        assert [turn.n for turn in history.open] == [2]
        log = await store.log("s", history.cursor)
        assert log is not None
        assert [event.type for event in log.events] == ["turn.started", "delta", "delta"]

    async def test_turns_by_pages(self, store: Store) -> None:
        """The latest, those before and after a number, and by status."""
        await self.made(store)
        for i in range(4):
            await self.say(store, f"m{i}")
        await store.finish(await self.claimed(store), answer("ok"))

        async def numbers(**more: Any) -> tuple[list[int], bool]:
            asked = {"status": None, "before": None, "after": None, "limit": 10, **more}
            found, has_more = await store.turns("s", **asked)
            return [turn.n for turn in found], has_more

        assert await numbers() == ([1, 2, 3, 4], False)
        assert await numbers(limit=2) == ([3, 4], True)
        assert await numbers(before=3) == ([1, 2], False)
        assert await numbers(after=1, limit=2) == ([2, 3], True)
        assert await numbers(status="completed") == ([1], False)

    async def test_the_log_from_any_cursor(self, store: Store) -> None:
        """From every cursor exactly the events behind it, of all turns or of one."""
        await self.made(store)
        for text in ("one", "two"):
            await self.say(store, text)
            await store.finish(await self.claimed(store), answer("ok"))
        for cursor in range(9):
            log = await store.log("s", cursor)
            assert log is not None
            assert [event.id for event in log.events] == list(range(cursor + 1, 9))
        second = await store.log("s", 0, turn=2)
        assert second is not None
        assert [event.id for event in second.events] == [5, 6, 7, 8]

    async def test_listeners_hear_events_once_and_in_order(self, store: Store) -> None:
        """Appends of this process are delivered when they are committed."""
        heard: list[Notice] = []
        unlisten = store.listen(heard.append)
        await self.made(store)
        await asyncio.gather(*(self.say(store, f"m{i}") for i in range(20)))
        while claims := await store.claim(desk(), 10):
            for claim in claims:
                await store.finish(claim, answer("ok"))
        unlisten()
        numbers = [e.id for n in heard if isinstance(n, Appended) for e in n.events]
        assert numbers == list(range(1, 81))
