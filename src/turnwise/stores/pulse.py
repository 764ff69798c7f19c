"""Pulse: which of the processes that share a file are alive.

Each process locks one byte, at its own number, of the file beside the store's. The kernel releases
the lock when the process ends, so a turn whose process was killed does not have to wait for its
lease to run out. A process that is only stopped still holds its lock: there the lease decides.
"""

from __future__ import annotations

from turnwise.stores.locks import LockFile


class Pulse:
    """The sign of life of process `number` (below 2**31) in `locks`."""

    def __init__(self, locks: LockFile, number: int) -> None:
        self._locks = locks
        self._number = number

    def start(self) -> None:
        """Be alive from now on."""
        if self._locks.usable:
            self._locks.take(self._number)

    def alive(self, number: int) -> bool:
        """Whether the process that chose `number` is alive; True where that cannot be known."""
        return number == self._number or self._locks.taken(number)
