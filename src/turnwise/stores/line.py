"""Line: the processes that share a file write one after another, each when the last one is done.

SQLite's own lock would be tried again and again, a millisecond apart, and the luckiest would get
it. Here the kernel wakes the next one, with two locks on bytes of the file beside the store's:
`next` is held by the process whose turn comes, which waits for `now`. All others wait behind it.

The line is a courtesy. What keeps the file whole is SQLite's lock. A process that stops while it
stands in line (a debugger, SIGSTOP) does not hold up the others for long, because a process that
has waited `PATIENCE` seconds goes without.
"""

from __future__ import annotations

import asyncio

from turnwise.stores.locks import LockFile
from turnwise.threads import Threads

PATIENCE = 0.1
"""Seconds in line before a process goes without."""
_NEXT, _NOW = 2**31 + 1, 2**31 + 2  # behind the bytes by which processes show that they are alive


class Line:
    """This process's place in the line at `locks`."""

    def __init__(self, locks: LockFile) -> None:
        self._locks = locks
        self._threads: Threads | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._wanted = False
        self._inside = False

    def close(self) -> None:
        """Leave for good."""
        if self._threads is not None:
            self._threads.end()

    async def enter(self) -> None:
        """Return when it is our turn, or when we have waited long enough."""
        if not self._locks.usable or self._inside:
            return
        if self._waiting is None and self._slip_in():
            return
        self._wanted = True
        try:
            assert self._waiting is not None
            await asyncio.wait({self._waiting}, timeout=PATIENCE)
        finally:
            self._wanted = False

    def leave(self) -> None:
        """We have written: let the next one. From any thread; not an error if we went without."""
        if self._inside:
            self._inside = False
            self._locks.give(_NOW)

    def _slip_in(self) -> bool:
        """Enter at once if nobody is there; else begin to wait."""
        first = self._locks.take(_NEXT)
        if first and self._locks.take(_NOW):
            self._locks.give(_NEXT)
            self._inside = True
            return True
        if self._threads is None:
            self._threads = Threads("turnwise-line")
        self._waiting = self._threads.run(self._wait, first)
        self._waiting.add_done_callback(self._arrived)
        return False

    def _wait(self, first: bool) -> None:
        if not first:
            self._locks.take(_NEXT, wait=True)
        self._locks.take(_NOW, wait=True)
        self._locks.give(_NEXT)

    def _arrived(self, waiting: asyncio.Future[None]) -> None:
        self._waiting = None
        if waiting.cancelled() or waiting.exception() is not None:
            return  # the file is closed
        self._inside = True
        if not self._wanted:  # we went without meanwhile
            self.leave()
