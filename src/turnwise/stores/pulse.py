"""Pulse: which of the processes that share a file are alive.

Each process locks one byte, at its own number, of a small file beside the store's. The kernel
lets go of the lock when the process ends, however it ends, so a turn whose process was killed
need not wait for its lease to run out. A process that is only stopped still holds its lock: there
the lease decides. Where the kernel has no such locks (it needs those of Linux, which belong to the
open file and not to the process) everyone counts as alive, and the lease decides always.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

try:
    import fcntl

    _SET, _GET = fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK
except (ImportError, AttributeError):  # not Linux
    fcntl = None  # type: ignore[assignment]

_FLOCK = "@hhqqi0q"  # struct flock: type, whence, start, length, pid


class Pulse:
    """The lock of process `number` in `path`; numbers are below 2**31."""

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        self._number = number
        self._file: int | None = None

    def start(self) -> None:
        """Be alive from now on. Raises OSError when the file cannot be used."""
        if fcntl is None:
            return
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.fcntl(self._file, _SET, self._lock(self._number))

    def stop(self) -> None:
        """Be alive no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def alive(self, number: int) -> bool:
        """Whether the process that chose `number` lives; True where one cannot know."""
        if self._file is None or number == self._number:
            return True
        found = fcntl.fcntl(self._file, _GET, self._lock(number))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)

    @staticmethod
    def _lock(number: int) -> bytes:
        return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
