"""Line: the processes that share a file write one after another, each when the last one is done.

SQLite's own lock would be tried again and again, a millisecond apart, and the luckiest would get
it. Here the kernel wakes the next one, with two locks on bytes of a file beside the store's:
`next` is held by the one whose turn comes, who waits for `now`. Who has written stands behind.

It is a courtesy and not what keeps the file whole: that is SQLite's lock. A process that stops
while it stands in line (a debugger, SIGSTOP) holds up nobody for long, because who has waited
`PATIENCE` seconds goes without.
"""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

from turnwise.threads import Threads

try:
    import fcntl

    _TRY, _WAIT = fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW
except (ImportError, AttributeError):  # not Linux
    fcntl = None  # type: ignore[assignment]

PATIENCE = 0.1
"""Seconds in line before one goes without."""
_NEXT, _NOW = 2**31 + 1, 2**31 + 2  # behind the bytes by which processes show that they live
_FLOCK = "@hhqqi0q"  # struct flock: type, whence, start, length, pid


class Line:
    """This process's place in the line of `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._threads: Threads | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._wanted = False
        self._inside = False

    def open(self) -> None:
        """Raises OSError when the file cannot be used."""
        if fcntl is not None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Leave for good."""
        if self._threads is not None:
            self._threads.end()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    async def enter(self) -> None:
        """Return when it is our turn, or when we have waited long enough."""
        if self._file is None or self._inside:
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
            self._set(_NOW, fcntl.F_UNLCK)

    def _slip_in(self) -> bool:
        """Enter at once if nobody is there; else begin to wait."""
        first = self._set(_NEXT, fcntl.F_WRLCK)
        if first and self._set(_NOW, fcntl.F_WRLCK):
            self._set(_NEXT, fcntl.F_UNLCK)
            self._inside = True
            return True
        if self._threads is None:
            self._threads = Threads("turnwise-line")
        self._waiting = self._threads.run(self._wait, first)
        self._waiting.add_done_callback(self._arrived)
        return False

    def _wait(self, first: bool) -> None:
        if not first:
            self._set(_NEXT, fcntl.F_WRLCK, wait=True)
        self._set(_NOW, fcntl.F_WRLCK, wait=True)
        self._set(_NEXT, fcntl.F_UNLCK)

    def _arrived(self, waiting: asyncio.Future[None]) -> None:
        self._waiting = None
        if waiting.cancelled() or waiting.exception() is not None:
            return  # the file is closed
        self._inside = True
        if not self._wanted:  # we went without meanwhile
            self.leave()

    def _set(self, byte: int, kind: int, *, wait: bool = False) -> bool:
        """Take or give back a byte; whether that was possible."""
        if self._file is None:
            return False
        lock = struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)
        try:
            fcntl.fcntl(self._file, _WAIT if wait else _TRY, lock)
        except BlockingIOError:
            return False
        return True
