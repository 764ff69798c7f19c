"""Readers: woken, nudged, told of the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from turnwise import Runtime, Turn
from turnwise.conversation import TurnRecord
from turnwise.conversation.events import Event, delta_draft
from turnwise.testing import talk


def delta(id: int) -> Event:
    made = delta_draft(1, 0.0, 1, 0, "x")
    return Event(id, made.type, made.turn, made.tail)


async def test_a_nudge_beside_an_event_is_not_lost() -> None:
    """Both in one step of the loop: first the event, then the nudge ends the next reading."""
    async with talk(lambda turn: "ok") as say:
        await say("hi")
        with say.runtime.gateway.follow("test", 7) as reader:
            reading = asyncio.create_task(reader.read())
            await asyncio.sleep(0.01)
            reader.push([delta(8)])
            reader.nudge()
            assert [event.id for event in await reading] == [8]
            async with asyncio.timeout(5):
                assert await reader.read() == []


async def test_patience_ends_while_events_come() -> None:
    """Waiting for a turn that streams on and on ends when its time is up."""

    async def reply(turn: Turn) -> AsyncIterator[str]:
        while True:
            yield "x"
            await asyncio.sleep(0.002)

    async with talk(reply) as say:
        submitted = await say.runtime.gateway.submit("s", "hi", create=True)
        for patience in (0.05, 1.1):
            async with asyncio.timeout(patience + 5):
                record = await say.runtime.gateway.wait("s", submitted.turn.n, patience)
            assert record.open
        await say.runtime.gateway.cancel("s", submitted.turn.n)


async def test_a_session_deleted_before_the_reader_starts() -> None:
    """Who begins to follow a turn whose session is gone is told."""
    async with talk(lambda turn: "ok") as say:
        await say("hi")
        reader = say.runtime.gateway.follow("test", 0)
        await say.runtime.gateway.delete("test")
        reader.start_at(1, 1)
        async with asyncio.timeout(5):
            assert await reader.read() == []
        assert reader.closed == "gone"
        reader.close()


@asynccontextmanager
async def waiting_turn() -> AsyncIterator[tuple[Runtime, TurnRecord, asyncio.Event]]:
    """A turn of the session "s" whose reply waits for an event."""
    release = asyncio.Event()

    async def reply(turn: Turn) -> str:
        await release.wait()
        return "ok"

    async with talk(reply) as say:
        submitted = await say.runtime.gateway.submit("s", "hi", create=True)
        yield say.runtime, submitted.turn, release


@pytest.mark.parametrize("told", [True, False])
async def test_a_turn_that_ends_while_its_log_is_read(
    monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Its last events are not taken for seen: they came between the log and the turn's record. One
    who is not told of them either finds them, where the log had nothing of the turn."""
    async with waiting_turn() as (runtime, record, release):
        gateway, store = runtime.gateway, runtime.store
        log = store.log

        async def overtaken(*args: Any, **more: Any) -> Any:
            found = await log(*args, **more)
            if not release.is_set():
                release.set()
                await gateway.wait("s", record.n, 5)
            return found

        monkeypatch.setattr(store, "log", overtaken)
        seen = 0 if told else record.first_event + 1
        with gateway.follow("s", seen, turn=record.n) as reader:
            if not told:
                reader.close()  # nothing is handed over: only the log tells
            types = []
            async with asyncio.timeout(5):
                while not reader.ended:
                    types += [event.type for event in await reader.read()]
        assert types[-2:] == ["message", "turn.completed"]


async def test_what_comes_while_the_record_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that waits for a turn's end does not sleep on if the end is announced while the
    store still says that the turn runs."""
    async with waiting_turn() as (runtime, record, release):
        gateway, store = runtime.gateway, runtime.store
        turn, asked = store.turn, 0

        async def overtaken(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            found = await turn(*args)
            if asked == 2:  # the first is before it begins to follow
                release.set()
                with gateway.follow("s", 0, turn=record.n) as other:
                    while not other.ended:
                        await other.read()
            return found

        monkeypatch.setattr(store, "turn", overtaken)
        async with asyncio.timeout(5):
            ended = await gateway.wait("s", record.n, None)
        assert ended.status == "completed"
