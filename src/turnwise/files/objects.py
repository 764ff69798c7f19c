"""Files in an object store: S3, Google Cloud, Azure and others, for several machines.

The address is one that `obstore` understands, such as `s3://bucket/prefix`; credentials and the
endpoint come from the variables of the provider (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from turnwise.errors import ConfigurationError, MissingExtra, StoreUnavailable
from turnwise.files.base import SESSION, FileStore, StoredFile, place_of
from turnwise.urls import masked

T = TypeVar("T")


class Objects(FileStore):
    """Files in the object store at `url`."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.exceptions import BaseError
        except ImportError:
            raise MissingExtra("An object store for files", "files") from None
        self._obstore, self._error = obstore, BaseError
        self._url = url
        try:
            self._store: Any = obstore.store.from_url(url)
        except (BaseError, ValueError) as error:
            raise ConfigurationError(f"{masked(url)!r} cannot be a file store: {error}") from None

    async def _do(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except FileNotFoundError:
            raise
        except (self._error, OSError) as error:
            raise StoreUnavailable(f"The store of files cannot be used: {error}") from error

    async def put(self, session: str, id: str, content: bytes) -> None:
        place = place_of(session)
        named = session.encode("utf-8", "surrogatepass")
        await self._do(self._obstore.put_async(self._store, f"{place}/{SESSION}", named))
        await self._do(self._obstore.put_async(self._store, f"{place}/{id}", content))

    async def get(self, session: str, id: str) -> bytes | None:
        return await self._read(f"{place_of(session)}/{id}")

    async def _read(self, path: str) -> bytes | None:
        try:
            found = await self._do(self._obstore.get_async(self._store, path))
            return bytes(await self._do(found.bytes_async()))
        except FileNotFoundError:
            return None

    async def remove(self, session: str, id: str) -> None:
        with suppress(FileNotFoundError):
            path = f"{place_of(session)}/{id}"
            await self._do(self._obstore.delete_async(self._store, path))

    async def drop(self, session: str) -> None:
        place = place_of(session)
        for file in [*await self.files(session), StoredFile(SESSION, 0.0)]:
            with suppress(FileNotFoundError):
                await self._do(self._obstore.delete_async(self._store, f"{place}/{file.id}"))

    async def sessions(self) -> AsyncIterator[str]:
        listed = await self._do(self._obstore.list_with_delimiter_async(self._store))
        for place in listed["common_prefixes"]:
            text = await self._read(f"{place.rstrip('/')}/{SESSION}")
            if text is not None:
                yield text.decode("utf-8", "surrogatepass")

    async def files(self, session: str) -> list[StoredFile]:
        listed = await self._do(
            self._obstore.list_with_delimiter_async(self._store, place_of(session))
        )
        every = [
            StoredFile(one["path"].rsplit("/", 1)[-1], one["last_modified"].timestamp())
            for one in listed["objects"]
        ]
        return [file for file in every if file.id != SESSION]

    async def prove(self) -> str:
        await self._do(self._obstore.put_async(self._store, "proof", b"proof"))
        await self._do(self._obstore.delete_async(self._store, "proof"))
        return masked(self._url)
