"""Locks: single bytes of a small file beside the store's that processes lock.

They are Linux's open file description locks (F_OFD_SETLK), so the kernel releases them when the
process ends, however it ends. They are an optimisation, not a requirement: without them (another
system, a file share that has none, a lock file that cannot be opened) every process is assumed to
be alive and writers do not queue; correctness depends only on leases and SQLite's own lock.

The lock file may be removed at any time. A process that holds a lock in it detects that within a
second and locks its byte in the current file (`renew`); until then, a missing lock in a new file
does not mean that a process is dead.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import time
import weakref
from pathlib import Path

try:
    import fcntl

    _TRY, _WAIT, _GET = fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW, fcntl.F_OFD_GETLK
except (ImportError, AttributeError):  # not Linux
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("turnwise.store")

_FLOCK = "@hhqqi0q"  # struct flock: type, whence, start, length, pid
_NO_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM}
"""The errors of a kernel or a file share without open file description locks."""
TRUST = 3.0
"""Seconds after the creation of a lock file until a missing lock means a dead process."""

_open_files: weakref.WeakSet[LockFile] = weakref.WeakSet()


class LockFile:
    """The bytes of the file at `path`, which is as private as the file `beside` it."""

    def __init__(self, path: Path, beside: Path) -> None:
        self._path = path
        self._beside = beside
        self._file: int | None = None
        self._removed: list[int] = []
        self._held: set[int] = set()
        self._trusted_from = 0.0

    @property
    def usable(self) -> bool:
        """Whether there are locks at all."""
        return self._file is not None

    def open(self, *, trusted: bool = False) -> None:
        """Open or create the file; `trusted` means that no process can hold locks in an earlier
        one. If locks are not possible, this logs one warning."""
        if fcntl is None:
            return
        try:
            self._file = self._opened(trusted)
        except OSError as error:
            self._go_without(error)
            return
        _open_files.add(self)

    def _opened(self, trusted: bool) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            file = os.open(self._path, flags | os.O_EXCL, 0o600)
            share_like(file, self._beside)
            if trusted:
                os.utime(file, (0, 0))
        except FileExistsError:
            file = os.open(self._path, flags, 0o600)
        # Nothing is ever written to it, so this is the time of its creation.
        age = time.time() - os.fstat(file).st_mtime
        self._trusted_from = time.monotonic() + min(TRUST, max(0.0, TRUST - age))
        return file

    def close(self) -> None:
        """Release all locks."""
        _open_files.discard(self)
        self._held.clear()
        self.close_files()

    def close_files(self) -> None:
        """Close the file. In the child of a fork the locks stay with the parent."""
        files, self._file, self._removed = (self._file, *self._removed), None, []
        for file in files:
            if file is not None:
                os.close(file)

    def renew(self) -> None:
        """If the file was removed or replaced, lock the same bytes in the current file."""
        if self._file is None or self._is_there():
            return
        log.warning("%s was removed: it is created again, and leases decide meanwhile.", self._path)
        self._removed.append(self._file)  # a thread may be waiting in it
        self._file = None
        self.open()
        for byte in list(self._held):
            self.take(byte)

    def _is_there(self) -> bool:
        assert self._file is not None
        try:
            named, ours = os.stat(self._path), os.fstat(self._file)
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    def take(self, byte: int, *, wait: bool = False) -> bool:
        """Lock a byte; returns whether this process holds it now."""
        if self._set(byte, fcntl.F_WRLCK, wait=wait):
            self._held.add(byte)
            return True
        return False

    def give(self, byte: int) -> None:
        """Unlock a byte."""
        self._held.discard(byte)
        self._set(byte, fcntl.F_UNLCK)

    def taken(self, byte: int) -> bool:
        """Whether another process holds a byte; True if that is unknown."""
        if self._file is None or time.monotonic() < self._trusted_from or not self._is_there():
            return True
        try:
            found = fcntl.fcntl(self._file, _GET, _lock(byte, fcntl.F_WRLCK))
        except OSError as error:
            self._go_without(error)
            return True
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)

    def shared(self) -> bool:
        """Whether another process holds any byte; False if that is unknown."""
        if self._file is None:
            return False
        found = fcntl.fcntl(self._file, _GET, struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)

    def _set(self, byte: int, kind: int, *, wait: bool = False) -> bool:
        if self._file is None:
            return False
        try:
            fcntl.fcntl(self._file, _WAIT if wait else _TRY, _lock(byte, kind))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._go_without(error)
            return False
        return True

    def _go_without(self, error: OSError) -> None:
        log.warning(
            "no locks in %s (%s): leases alone decide whose process is alive.",
            self._path,
            error.strerror,
        )
        self.close()


def share_like(file: int, beside: Path) -> None:
    """Give a new file the mode (and, as root, the owner) of the file `beside` it, if it exists."""
    try:
        model = os.stat(beside)
    except OSError:
        return
    os.fchmod(file, model.st_mode & 0o666)
    if os.geteuid() == 0 and (model.st_uid, model.st_gid) != (0, 0):
        os.fchown(file, model.st_uid, model.st_gid)


def _lock(byte: int, kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)


def _after_fork() -> None:
    for file in list(_open_files):
        file.close_files()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
