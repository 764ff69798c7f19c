"""Tools: what a turn can request of the attempt that runs it; see Tools in turn.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

import orjson

from turnwise.conversation import Message, file_in
from turnwise.conversation.steps import StepKind
from turnwise.errors import NotFound
from turnwise.files import FileStore
from turnwise.media import Media
from turnwise.memory import Entry
from turnwise.stores.base import Store
from turnwise.stores.claim import Claim
from turnwise.threads import Threads
from turnwise.turn import Options
from turnwise.worker.output import Output
from turnwise.worker.recollection import Recollection
from turnwise.worker.session_cache import CachedSession, SessionCache
from turnwise.worker.steps import Step

T = TypeVar("T")
Stop = Literal["cancel", "timeout", "lost", "release"]


class Supplier(Protocol):
    """The part of a worker that a turn's tools use."""

    store: Store
    options: Options
    files: FileStore | None
    media: Media | None
    cache: SessionCache


class Tools(ABC):
    """The tools of the turn of `claim`: its output, and its session's memory, history and files."""

    _worker: Supplier

    def __init__(self, worker: Supplier, claim: Claim, kept: CachedSession, output: Output) -> None:
        self.claim = claim
        self._worker = worker
        self.kept = kept
        self._output = output
        self._memory: Recollection | None = None
        self._over = False

    @abstractmethod
    def stop(self, why: Stop) -> None:
        """Stop the handler."""

    async def say(self, piece: str | Message) -> None:
        await self._output.say(piece)

    async def emit(self, name: str, data: Any, keep: bool) -> None:
        await self._output.emit(name, data, keep)

    def step(self, name: str, input: Any, kind: StepKind) -> Step:
        return self._output.step(name, input, kind)

    def _remembering(self) -> Recollection:
        """The session's memory: made when it is wanted, because most turns do without."""
        if self._memory is None:
            worker, lost = self._worker, partial(self.stop, "lost")
            most = worker.options.max_memory
            self._memory = Recollection(
                worker.store, self.claim, self.kept, worker.cache, most, lost
            )
            self._memory.over = self._over
        return self._memory

    async def remember(self, entries: tuple[Any, ...]) -> int:
        return await self._remembering().remember(entries)

    async def recall(self, last: int) -> list[Entry]:
        return await self._remembering().recall(last)

    async def forget(self, before: int | None) -> None:
        await self._remembering().forget(before)

    async def history(self, before: int | None, limit: int) -> list[Message]:
        last = self.claim.seq + 1 if before is None else before
        read = partial(self._worker.store.history, self.claim.session, before=last, limit=limit)
        return (await self._remembering().insist(read)).messages

    async def file(self, url: str) -> bytes:
        session, worker = self.claim.session, self._worker
        id, files = file_in(session, url), worker.files
        if id is None and worker.media is not None and self.claim.note:
            found = await worker.media.read(orjson.loads(self.claim.note), url)
            if found is not None:
                return found
        if id is None or files is None:
            raise NotFound("This is not a file of the session.")
        known = await self._remembering().insist(partial(worker.store.files, session))
        content = None
        if known is not None and id in known:
            content = await self._remembering().insist(partial(files.get, session, id))
        if content is None:
            raise NotFound("This file does not exist.")
        return content

    def in_thread(self, fn: Callable[..., T], *args: Any) -> Awaitable[T]:
        if self.kept.thread is None:
            self.kept.thread = Threads(f"turnwise-{self.claim.session[:40]}")
        return self.kept.thread.run(fn, *args)
