"""Files: detects outside changes to the store's files.

A process that writes to a deleted or replaced file would acknowledge messages that are lost. So
each transaction first checks that the names still lead to the files that were opened (two `stat`
calls, some microseconds for a group of acts); if not, the store refuses all further writes.
Messages accepted before are in the file that was opened.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from turnwise.errors import ConfigurationError, StoreUnavailable

log = logging.getLogger("turnwise.store")

Identity = tuple[int, int]
LEAST_SPACE = 1_000_000
"""Free bytes that the disk must have for the store to report that it is ready."""


class StoreFiles:
    """The file at `path` and its write-ahead log."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._names = (self._path, f"{self._path}-wal")
        self._opened: dict[str, Identity] = {}
        self.trouble: str | None = None
        """Why the store can no longer write, in a sentence."""

    def make_private(self) -> bool:
        """Create the file, readable by its owner only, if there is none; returns whether it was
        created. SQLite gives the files beside it the same mode. Raises OSError."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            self._check_kind()
            return False
        return True

    def _check_kind(self) -> None:
        """Raises ConfigurationError if the file cannot hold a store safely."""
        found = os.stat(self._path)
        if stat.S_ISDIR(found.st_mode):
            raise ConfigurationError(f"{self._path} is a folder.")
        if found.st_nlink > 1:
            raise ConfigurationError(
                f"{self._path} has several names (hard links). Two processes that open it by two "
                "names would each write a separate log and lose messages: leave it one name."
            )
        if _is_mounted(self._path):
            raise ConfigurationError(
                f"{self._path} is mounted as a single file, so its write-ahead log would not be "
                "kept with it. Mount its folder instead."
            )

    def remember(self) -> None:
        """Remember the opened files; call it after the first write."""
        self._opened = {name: found for name in self._names if (found := _identity(name))}

    def check(self) -> None:
        """Raises StoreUnavailable if one of them was deleted or replaced; logs it once."""
        for name, opened in self._opened.items():
            found = _identity(name)
            if found != opened:
                self._refuse(name, "replaced" if found else "deleted")
        if self.trouble is not None:
            raise StoreUnavailable(self.trouble)

    def _refuse(self, name: str, what: str) -> None:
        if self.trouble is None:
            self.trouble = (
                f"{name} was {what} while it was open: nothing more can be stored. "
                "Restart the process once the right file is in its place."
            )
            log.error("%s", self.trouble)

    def check_space(self) -> None:
        """Raises StoreUnavailable when the disk has no room for the next messages."""
        try:
            found = os.statvfs(self._path)
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error.strerror}") from error
        if found.f_bavail * found.f_frsize < LEAST_SPACE:
            raise StoreUnavailable(f"The disk that holds {self._path} is full.")


def _is_mounted(path: str) -> bool:
    """Whether exactly this path is a mount point (known on Linux only; elsewhere: no)."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            return any(line.split(" ")[4] == path.replace(" ", "\\040") for line in mounts)
    except OSError:
        return False


def _identity(name: str) -> Identity | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino
