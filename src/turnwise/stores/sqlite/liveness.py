"""Liveness: which of the processes that share a file are alive.

Each process locks one byte, at its own number, of the lock file beside the store's file. The kernel
releases the lock when the process ends, so a turn whose process was killed need not wait until its
lease expires. A process that is only stopped still holds its lock: then the lease decides.
"""

from __future__ import annotations

from turnwise.stores.sqlite.locks import LockFile


class Liveness:
    """The sign of life of process `number` (below 2**31) in `locks`."""

    def __init__(self, locks: LockFile, number: int) -> None:
        self._locks = locks
        self._number = number

    def start(self) -> None:
        """Take the lock: this process counts as alive."""
        if self._locks.usable:
            self._locks.take(self._number)

    def alive(self, number: int) -> bool:
        """Whether the process with this `number` is alive; True if that is unknown."""
        return number == self._number or self._locks.taken(number)
