"""Roll call: all processes that share a store say how they are, while somebody wants to know.

Who looks publishes a *call* every two seconds: a new random text, before those of the last minute.
A process that finds a call it has not answered publishes its report with that call. So nobody
reports while nobody looks, no clock is compared with another machine's, and a process is silent if
it has answered none of the last calls.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from turnwise.errors import StoreUnavailable
from turnwise.stores.base import Store

CALLS, REPORT = "calls", "process:"
"""The names of the published facts: the last calls, and of each process its report."""
EVERY = 2.0
"""Seconds between two calls."""
KEPT = 30
"""Calls that are kept: a minute of them."""
PRESENT = 4
"""A process that has answered none of so many calls is silent."""
CALM, AWAKE = 3.0, 1.0
"""Seconds between two looks for a call, and the same for a while after one."""
LATELY = 10.0

Report = dict[str, Any]


class RollCall:
    """One process's part. `report()` returns what it has to say, as JSON."""

    def __init__(self, store: Store, report: Callable[[], Mapping[str, Any]]) -> None:
        self.name = secrets.token_hex(6)
        self._store = store
        self._report = report
        self._heard: str | None = None
        self._began = False
        self._answered_at: float | None = None
        self._called_at = float("-inf")

    # Answering

    async def answer_forever(self) -> None:
        """Report whenever there is a call."""
        while True:
            lately = time.monotonic() - (self._answered_at or float("-inf")) < LATELY
            await asyncio.sleep(AWAKE if lately else CALM)
            try:
                await self.answer()
            except StoreUnavailable:
                continue

    async def answer(self) -> None:
        """Report if there is a call that was not answered; one from before this process is not."""
        calls = await self._calls()
        last = calls[0] if calls else None
        if self._began and last is not None and last != self._heard:
            report = {**self._report(), "call": last}
            await self._store.publish(REPORT + self.name, orjson.dumps(report))
            self._answered_at = time.monotonic()
        self._heard, self._began = last, True

    async def withdraw(self) -> None:
        """This process ends: what it has said goes."""
        if self._answered_at is not None:
            await self._store.publish(REPORT + self.name, None)

    # Asking

    async def ask(self) -> dict[str, Report]:
        """Call if it is time, and return what the processes have reported last, by their names;
        each has `silent`."""
        now = time.monotonic()
        if now - self._called_at >= EVERY:
            goes_on = now - self._called_at < LATELY
            calls = await self._calls() if goes_on else []
            fresh = [secrets.token_hex(4), *calls][:KEPT]
            await self._store.publish(CALLS, orjson.dumps(fresh))
            self._called_at = now
        return await self._reports(await self._calls())

    async def _reports(self, calls: list[str]) -> dict[str, Report]:
        found = {}
        for name, value in sorted((await self._store.published(REPORT)).items()):
            report = orjson.loads(value)
            age = calls.index(report["call"]) if report["call"] in calls else len(calls)
            if age < len(calls):
                found[name.removeprefix(REPORT)] = {**report, "silent": age >= PRESENT}
            elif age >= PRESENT:  # it ended without a word, or long before anybody looked
                await self._store.publish(name, None)
        return found

    async def _calls(self) -> list[str]:
        found = (await self._store.published(CALLS)).get(CALLS)
        calls: list[str] = orjson.loads(found) if found is not None else []
        return calls
