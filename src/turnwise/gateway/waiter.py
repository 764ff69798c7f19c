"""Waiter: waits for the end of a turn that this process answers, without reading its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from turnwise.conversation import TurnRecord
from turnwise.stores.notices import Ended
from turnwise.timers import Alarms


class Waiter:
    """What is heard of the turns of one session that end in this process."""

    __slots__ = ("_alarms", "_close", "_heard", "_wake", "_woken")

    def __init__(self, alarms: Alarms, close: Callable[[Waiter], None]) -> None:
        self._alarms = alarms
        self._close = close
        self._heard: list[Ended] = []
        self._wake: asyncio.Future[None] | None = None
        self._woken = False

    def hear(self, notice: Ended) -> None:
        """A turn of the session has ended."""
        self._heard.append(notice)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def wake(self) -> None:
        """Return from `end` now."""
        self._woken = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def end(self, n: int, timeout: float) -> TurnRecord | None:
        """The record of turn `n`, or None after about `timeout` seconds, or once it is woken."""
        alarm = self._alarms.set(timeout, self.wake)
        try:
            while True:
                for notice in self._heard:
                    if notice.n == n:
                        return notice.record
                if self._woken:
                    return None
                self._heard.clear()
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
        finally:
            self._alarms.cancel(alarm)

    def close(self) -> None:
        """Hear no more."""
        self._close(self)
