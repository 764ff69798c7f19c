"""Alarms: calls after a timeout that is rarely reached.

An event loop's timer costs some microseconds to set and as many to cancel. Each request sets one
and nearly all are cancelled, so they share one timer here, which checks four times a second: an
alarm rings up to a quarter of a second late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PERIOD = 0.25


class Alarms:
    """The alarms of one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[float, Callable[[], object]]] = {}
        self._last = 0
        self.stopping = False
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float, ring: Callable[[], object]) -> int:
        """Call `ring` in `seconds` or a little later (soon if the process is stopping); returns
        what `cancel` takes."""
        self._last += 1
        delay = 0.0 if self.stopping else seconds
        self._waiting[self._last] = (time.monotonic() + delay, ring)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PERIOD, self._look)
        return self._last

    def cancel(self, alarm: int) -> None:
        """Cancel an alarm; cancelling twice, or after it rang, is not an error."""
        self._waiting.pop(alarm, None)

    def ring_all(self) -> None:
        """Ring all alarms now: the process is stopping."""
        self.stopping = True
        waiting, self._waiting = self._waiting, {}
        for _, ring in waiting.values():
            ring()

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        self._timer = asyncio.get_running_loop().call_later(PERIOD, self._look)
        now = time.monotonic()
        for alarm, (deadline, ring) in list(self._waiting.items()):
            if deadline <= now:
                self.cancel(alarm)
                ring()
