"""Files in this process, until it ends: beside the memory store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from turnwise.files.base import FileStore, StoredFile


class MemoryFiles(FileStore):
    """Dicts of bytes."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, tuple[bytes, float]]] = {}

    async def put(self, session: str, id: str, content: bytes) -> None:
        self._kept.setdefault(session, {})[id] = content, time.time()

    async def get(self, session: str, id: str) -> bytes | None:
        content, _ = self._kept.get(session, {}).get(id, (None, 0.0))
        return content

    async def remove(self, session: str, id: str) -> None:
        self._kept.get(session, {}).pop(id, None)

    async def drop(self, session: str) -> None:
        self._kept.pop(session, None)

    async def sessions(self) -> AsyncIterator[str]:
        for session in list(self._kept):
            yield session

    async def files(self, session: str) -> list[StoredFile]:
        return [StoredFile(id, at) for id, (_, at) in self._kept.get(session, {}).items()]

    async def prove(self) -> str:
        return "this process"
