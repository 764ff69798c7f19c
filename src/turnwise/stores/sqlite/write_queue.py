"""Processes that share a file write one after another, each when the last one is done.

SQLite's own lock would be polled every millisecond, and a random process would get it. Here the
kernel wakes the next process, with two locks on bytes of the lock file beside the store's file: the
next process holds `next` and waits for `now`. All others wait for `next`.

The queue is only an optimisation; SQLite's lock protects the file. A process that stops while it
waits (a debugger, SIGSTOP) does not block the others for long, because a process that has waited
`PATIENCE` seconds writes without the queue's lock.
"""

from __future__ import annotations

import asyncio

from turnwise.stores.sqlite.locks import LockFile
from turnwise.threads import Threads

PATIENCE = 0.1
"""Seconds in the queue before a process writes without its lock."""
_NEXT, _NOW = 2**31 + 1, 2**31 + 2  # after the bytes that show which processes are alive


class WriteQueue:
    """This process's place in the queue at `locks`."""

    def __init__(self, locks: LockFile) -> None:
        self._locks = locks
        self._threads: Threads | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._wanted = False
        self._inside = False

    def close(self) -> None:
        """Leave the queue permanently."""
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
        """After a write: release the lock, from any thread; not an error if we do not hold it."""
        if self._inside:
            self._inside = False
            self._locks.give(_NOW)

    def _slip_in(self) -> bool:
        """Enter at once if the queue is empty; else start to wait."""
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
        if not self._wanted:  # it gave up waiting in the meantime
            self.leave()
