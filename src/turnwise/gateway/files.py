"""Files of a session: taken in, named by messages, read, and removed with the session."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from turnwise.conversation import Attachment, file_in, valid_text
from turnwise.errors import Invalid, NoFileStore, NotFound, StoreUnavailable, TooLarge
from turnwise.files import FileStore, checked_kind
from turnwise.stores.base import Store
from turnwise.stores.records import FileRecord

UNNAMED = 3600.0
"""Seconds that a file is kept which no message names."""
MAX_KIND = 100
"""Characters of a media type."""
MAX_FILE_NAME = 200
"""Characters of a file's name."""


class FileLimits(NamedTuple):
    """Maximum bytes of a file, and of all files of a session."""

    file: int = 5_000_000
    session: int = 100_000_000


class Files:
    """The files of all sessions; `store` knows which there are, `kept` has their bytes."""

    def __init__(self, store: Store, kept: FileStore | None, limits: FileLimits) -> None:
        self._store = store
        self._kept = kept
        self.limits = limits

    async def upload(
        self, session_id: str, name: str, said: str | None, content: bytes
    ) -> FileRecord:
        """Keep a file of a session, which a message is to name within an hour.

        `said` is the media type that the client says. Raises NoFileStore, NotFound, TooLarge,
        WrongKind, Invalid, StoreUnavailable.
        """
        if self._kept is None:
            raise NoFileStore()
        if not content:
            raise Invalid("The file is empty.")
        if said is not None and len(said) > MAX_KIND:
            raise Invalid(f"A media type has at most {MAX_KIND} characters.")
        if len(content) > self.limits.file:
            raise TooLarge(f"A file has at most {self.limits.file:,} bytes.")
        kind = checked_kind(content, said)
        id = secrets.token_urlsafe(16)
        file = FileRecord(id, _checked_file_name(name), kind, len(content))
        if await self._store.files(session_id) is None:
            raise NotFound("This session does not exist.")
        await self._kept.put(session_id, id, content)
        try:
            await self._store.attach(session_id, file, self.limits.session)
        except StoreUnavailable:
            raise  # perhaps it is there; a sweep removes what is not
        except BaseException:
            await self._kept.remove(session_id, id)
            raise
        return file

    async def read(self, session_id: str, id: str) -> tuple[FileRecord, bytes]:
        """A file of a session. Raises NotFound, StoreUnavailable."""
        known = await self._store.files(session_id)
        file = None if known is None else known.get(id)
        content = None
        if file is not None and self._kept is not None:
            content = await self._kept.get(session_id, id)
        if file is None or content is None:
            raise NotFound("This file does not exist.")
        return file, content

    async def named(
        self, session_id: str, attachments: Sequence[Attachment]
    ) -> tuple[list[Attachment], list[str]]:
        """The attachments as they are kept, and which of the session's files they name.

        What a client says of a file that is here is replaced by what is known of it. Raises Invalid
        for a path that is not a file of this session; other addresses stay as they are.
        """
        ids = [id_in(session_id, attachment.url) for attachment in attachments]
        if not any(ids):
            return list(attachments), []
        known = await self._store.files(session_id) or {}
        kept: list[Attachment] = []
        for attachment, id in zip(attachments, ids, strict=True):
            if id is None:
                kept.append(attachment)
                continue
            if id not in known:
                raise Invalid("An attachment names a file that does not exist.")
            file = known[id]
            kept.append(Attachment(file.type, attachment.url, file.name, file.size))
        return kept, [id for id in ids if id is not None]

    async def drop(self, session_id: str) -> None:
        """A session was deleted or reset: nothing of its files is left. If the file store cannot be
        reached, a sweep does it later."""
        if self._kept is not None:
            try:
                await self._kept.drop(session_id)
            except StoreUnavailable:
                pass

    async def remove(self, session_id: str, ids: Iterable[str]) -> None:
        """Remove the bytes of files that the session has no longer. Otherwise the same as `drop`:
        what came in the meantime stays."""
        if self._kept is not None:
            try:
                for id in ids:
                    await self._kept.remove(session_id, id)
            except StoreUnavailable:
                pass

    async def copy(self, session_id: str, fresh: str) -> None:
        """The files of a fork are its own."""
        if self._kept is None:
            return
        for id in await self._store.files(fresh) or {}:
            content = await self._kept.get(session_id, id)
            if content is not None:
                await self._kept.put(fresh, id, content)

    async def sweep(self) -> None:
        """Remove files that no message has named for an hour, and bytes of which no session knows:
        of sessions that have ended, and what a process has left that died."""
        if self._kept is None:
            return
        before = time.time() - UNNAMED
        async for session_id in self._kept.sessions():
            await self._store.forget_files(session_id, before)
            known = await self._store.files(session_id)
            if known is None:
                await self._kept.drop(session_id)
                continue
            for file in await self._kept.files(session_id):
                if file.id not in known and file.at < before:
                    await self._kept.remove(session_id, file.id)


def id_in(session_id: str, url: str) -> str | None:
    """The id of the session's file that an address names, or None. Raises Invalid for a path that
    is not of this session."""
    if url.startswith(("http://", "https://", "data:")) or not url.startswith("/"):
        return None
    id = file_in(session_id, url)
    if id is None:
        raise Invalid("An attachment's url is a file of this session, or an http(s) or data URL.")
    return id


def _checked_file_name(name: str) -> str:
    """The last part of a file's name, without what could do harm. Raises Invalid."""
    name = PurePosixPath(valid_text(name).replace("\\", "/")).name
    name = "".join(c for c in name if c.isprintable()).strip()
    if not name or name in (".", ".."):
        return "file"
    if len(name) > MAX_FILE_NAME:
        raise Invalid(f"A file's name has at most {MAX_FILE_NAME} characters.")
    return name
