"""Files in a folder: for one machine, or for several with a shared disk."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from turnwise.errors import StoreUnavailable
from turnwise.files.base import SESSION, FileStore, StoredFile, place_of

T = TypeVar("T")


class Folder(FileStore):
    """Files in the folder `root`: a folder for each session."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise StoreUnavailable(f"The folder of files cannot be used: {error}") from error

    def _place(self, session: str) -> Path:
        return self._root / place_of(session)

    async def put(self, session: str, id: str, content: bytes) -> None:
        await self._do(lambda: self._put(session, id, content))

    def _put(self, session: str, id: str, content: bytes) -> None:
        place = self._place(session)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
        named = place / SESSION
        if not named.exists():
            _write(named, session.encode("utf-8", "surrogatepass"))
        _write(place / id, content)

    async def get(self, session: str, id: str) -> bytes | None:
        def read() -> bytes | None:
            try:
                return (self._place(session) / id).read_bytes()
            except FileNotFoundError:
                return None

        return await self._do(read)

    async def remove(self, session: str, id: str) -> None:
        await self._do(lambda: (self._place(session) / id).unlink(missing_ok=True))

    async def drop(self, session: str) -> None:
        await self._do(lambda: shutil.rmtree(self._place(session), ignore_errors=True))

    async def sessions(self) -> AsyncIterator[str]:
        def places() -> list[Path]:
            return sorted(self._root.iterdir()) if self._root.is_dir() else []

        for place in await self._do(places):
            try:
                text = await asyncio.to_thread((place / SESSION).read_bytes)
            except OSError:  # it is being made or removed, or is not ours
                continue
            yield text.decode("utf-8", "surrogatepass")

    async def files(self, session: str) -> list[StoredFile]:
        def look() -> list[StoredFile]:
            place = self._place(session)
            if not place.is_dir():
                return []
            return [
                StoredFile(file.name, file.stat().st_mtime)
                for file in place.iterdir()
                if file.name != SESSION
            ]

        return await self._do(look)

    async def prove(self) -> str:
        def prove() -> None:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            proof = self._root / f"proof-{secrets.token_hex(8)}"
            _write(proof, b"proof")
            proof.unlink()

        await self._do(prove)
        return f"the folder {self._root}"


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, so that it survives a power cut."""
    part = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
