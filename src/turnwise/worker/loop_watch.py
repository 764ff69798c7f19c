"""Loop watch: detects and logs which code blocks the event loop.

A handler that computes or blocks without `await` stops every session of its process: streams stall,
leases are not renewed. A thread checks a few times a second whether the loop still runs; if not, it
determines which turn is running and at which line.
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
"""Seconds between two heartbeats of the loop, and between two checks."""
LIMIT = 1.0
"""Seconds for which a loop may be blocked without a warning."""
HANGS = 10.0
"""Seconds after which a warning is logged while the loop is still blocked."""

WhoseTask = Callable[["asyncio.Task[Any] | None"], str]


class LoopWatch:
    """Watches the running event loop. `whose(task)` names the turn that a task works on."""

    def __init__(self, whose: WhoseTask) -> None:
        self._whose = whose
        self._beat = 0.0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start watching."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._live()
        threading.Thread(target=self._watch, name="turnwise-loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Stop watching."""
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
                continue  # the whole process was stopped: a debugger, SIGSTOP, a sleeping machine
            if now - self._beat > LIMIT:
                self._report(self._beat)
                looked = time.monotonic()

    def _report(self, since: float) -> None:
        """Log what blocks the loop, when it is over or when it lasts too long."""
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
        """The turn and the line that are being executed."""
        frame = sys._current_frames().get(self._thread)
        code = frame.f_code if frame is not None else None
        line = f"{code.co_filename}:{frame.f_lineno}" if frame and code else "unknown"
        return f"{self._whose(asyncio.current_task(self._loop))} ({line})"
