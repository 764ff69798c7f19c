"""Owners are served in turns: a flood by one of them, on a clock that jumps."""

from __future__ import annotations

import asyncio
import time
from unittest.mock import patch

from turnwise import Message, Turn
from turnwise.stores.memory import MemoryStore
from turnwise.stores.records import Submission
from turnwise.testing import virtual
from turnwise.turn import Options
from turnwise.worker.worker import Worker

SLOTS = 10
OWNERS = 100


def starts(flood: int) -> dict[str, float]:
    """When the turns of a hundred owners start, with one session each, behind a flood of so many
    sessions of another owner; turns take a second, and ten run at once."""
    began: dict[str, float] = {}

    async def answer(turn: Turn) -> None:
        began.setdefault(turn.session.id, asyncio.get_running_loop().time())
        await asyncio.sleep(1.0)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        store = MemoryStore(clock=lambda: 1.7e9 + loop.time())
        sessions = [(f"f{i}", "flood") for i in range(flood)]
        sessions += [(f"o{i}", f"owner {i}") for i in range(OWNERS)]
        for name, owner in sessions:
            wish = Submission(name, Message("hi", role="user").encode(), create=True, owner=owner)
            wish.ttl = 1e6
            await store.submit(wish)
            await asyncio.sleep(0.001)
        first = loop.time()
        worker = Worker(store, answer, Options(), concurrency=SLOTS)
        worker.start()
        while sum(name[0] == "o" for name in began) < OWNERS:
            await asyncio.sleep(0.1)
        worker.retire()
        await worker.drain(0.0)
        for name in began:
            began[name] -= first

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (
            patch.object(time, "monotonic", loop.time),
            patch.object(time, "time", lambda: 1.7e9 + loop.time()),
        ):
            await story()

    virtual.run(main())
    return {name: at for name, at in began.items() if name[0] == "o"}


def test_a_flood_counts_as_one() -> None:
    """Every other owner's turn starts as if the flooder had one session waiting."""
    alone, flooded = starts(1), starts(1000)
    assert set(alone) == set(flooded)
    late = {name: flooded[name] - alone[name] for name in alone}
    assert max(late.values()) < 0.05, max(late.items(), key=lambda pair: pair[1])
