"""Alarms: many, one timer, each rings once or is cancelled."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from turnwise import timers as module
from turnwise.timers import Alarms


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD", 0.01)


async def test_alarms_ring_in_time_and_once() -> None:
    """After their seconds, not before, in whatever order they were set; a cancelled one never."""
    alarms, rung = Alarms(), asyncio.Event()
    began = time.monotonic()
    after: dict[float, list[float]] = {0.03: [], 0.02: [], 0.01: []}

    def ring(seconds: float) -> None:
        after[seconds].append(time.monotonic() - began)

    for seconds in after:
        alarms.set(seconds, partial(ring, seconds))
    never = asyncio.Event()
    cancelled = alarms.set(0.02, never.set)
    alarms.cancel(cancelled)
    alarms.cancel(cancelled)
    alarms.set(0.06, rung.set)
    async with asyncio.timeout(5):
        await rung.wait()
    for seconds, times in after.items():
        assert len(times) == 1
        assert times[0] >= seconds
    assert not never.is_set()


async def test_an_alarm_may_set_another() -> None:
    """Also after a time in which none was set."""
    alarms, rung = Alarms(), asyncio.Event()
    for _ in range(2):
        rung.clear()
        alarms.set(0.0, lambda: alarms.set(0.0, rung.set))
        async with asyncio.timeout(5):
            await rung.wait()
