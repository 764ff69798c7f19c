"""Loop watch: notices that something holds up the event loop, and says what it is.

A handler that computes or blocks without `await` stops every session of its process: streams stand
still, leases are not renewed. A thread looks a few times a second whether the loop still moves; if
not, it sees which turn is running and in which line.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from turnwise import telemetry

log = logging.getLogger("turnwise.worker")

BEAT = 0.25
"""Seconds between two signs of life of the loop, and between two looks."""
LIMIT = 1.0
"""Seconds for which a loop may stand still without a word."""
HANGS = 10.0
"""Seconds after which it is said while it still lasts."""

WhoseTask = Callable[["asyncio.Task[Any] | None"], str]


class LoopWatch:
    """Watches the running event loop. `whose(task)` names the turn that a task works on."""

    def __init__(self, whose: WhoseTask) -> None:
        self._whose = whose
        self._beat = 0.0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._live()
        threading.Thread(target=self._watch, name="turnwise-loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _live(self) -> None:
        self._beat = time.monotonic()
        if not self._stopped.is_set():
            self._loop.call_later(BEAT, self._live)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._stopped.wait(BEAT):
            now, last = time.monotonic(), looked
            looked = now
            if now - last > 2 * BEAT + LIMIT:
                continue  # the whole process stood still: a debugger, SIGSTOP, a sleeping machine
            if now - self._beat > LIMIT:
                self._report(self._beat)
                looked = time.monotonic()

    def _report(self, since: float) -> None:
        """Say what it was, when it is over or when it lasts too long."""
        what, told = self._what(), False
        while self._beat == since and not self._stopped.wait(BEAT):
            held = time.monotonic() - since
            if held > HANGS and not told:
                told = True
                log.warning("%s is holding up the event loop, for %.1f s so far", what, held)
        held = time.monotonic() - since
        telemetry.HELD_UP.inc(held)
        log.warning("%s held up the event loop for %.1f s", what, held)

    def _what(self) -> str:
        """The turn and the line that are running now."""
        frame = sys._current_frames().get(self._thread)
        code = frame.f_code if frame is not None else None
        line = f"{code.co_filename}:{frame.f_lineno}" if frame and code else "unknown"
        return f"{self._whose(asyncio.current_task(self._loop))} ({line})"
