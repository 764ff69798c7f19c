"""File store: keeps the bytes of files; the session's store knows which files there are.

Bytes are written before the session knows of them, and removed after it has forgotten them, so a
process that dies in between leaves bytes that nobody names: a sweep removes those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import NamedTuple

SESSION = "session"
"""The name under which a session's place keeps the session's id."""


class StoredFile(NamedTuple):
    """The bytes of a file: its id, and when they were written (seconds since 1970)."""

    id: str
    at: float


class FileStore(ABC):
    """Keeps bytes by session and id. Each method raises StoreUnavailable if it cannot."""

    @abstractmethod
    async def put(self, session: str, id: str, content: bytes) -> None:
        """Keep the bytes of a file."""

    @abstractmethod
    async def get(self, session: str, id: str) -> bytes | None:
        """The bytes of a file, or None if there are none."""

    @abstractmethod
    async def remove(self, session: str, id: str) -> None:
        """Remove the bytes of a file, if there are any."""

    @abstractmethod
    async def drop(self, session: str) -> None:
        """Remove all files of a session."""

    @abstractmethod
    def sessions(self) -> AsyncIterator[str]:
        """The sessions that have files here."""

    @abstractmethod
    async def files(self, session: str) -> list[StoredFile]:
        """The files of a session that are here."""

    @abstractmethod
    async def prove(self) -> str:
        """Write and remove something; returns where files are kept, for `turnwise check`."""


def place_of(session: str) -> str:
    """The name of a session's place: ids may be any text, names of files may not."""
    return blake2b(session.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
