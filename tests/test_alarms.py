"""Alarms: many, one timer, each rings once or is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from turnwise import alarms as module
from turnwise.alarms import Alarms


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD", 0.01)


async def test_alarms_ring_in_time_and_once() -> None:
    """After their seconds, not before, in whatever order they were set."""
    alarms, rung = Alarms(), asyncio.Event()
    order: list[str] = []
    alarms.set(0.03, lambda: order.append("late"))
    alarms.set(0.06, rung.set)
    alarms.set(0.02, lambda: order.append("early"))
    cancelled = alarms.set(0.02, lambda: order.append("never"))
    alarms.cancel(cancelled)
    alarms.cancel(cancelled)
    async with asyncio.timeout(5):
        await rung.wait()
    assert order == ["early", "late"]


async def test_an_alarm_may_set_another() -> None:
    """Also after a time in which none was set."""
    alarms, rung = Alarms(), asyncio.Event()
    for _ in range(2):
        rung.clear()
        alarms.set(0.0, lambda: alarms.set(0.0, rung.set))
        async with asyncio.timeout(5):
            await rung.wait()
