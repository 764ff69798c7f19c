"""Link: this process's calls to the server of one partition.

A call whose answer is lost raises Lost, and says whether it was sent: whoever called finds out what
became of it (see remote.py). Nothing is repeated here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from typing import Any

from redis.exceptions import RedisError

from turnwise.batching import Batch
from turnwise.stores.driver import Lost
from turnwise.stores.redis.line import Line, Refused
from turnwise.stores.redis.routes import Routes

MOVING = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "LOADING")
"""What a server answers that does not hold the partition, or not yet: nothing was done."""


class Script:
    """A script beside this file."""

    def __init__(self, name: str) -> None:
        self.source = resources.files(__package__).joinpath(f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


class Link:
    """Calls to the partition whose keys begin with `base`. `observe` is called for each write."""

    def __init__(
        self,
        routes: Routes,
        base: bytes,
        *,
        replicas: int = 0,
        observe: Callable[[Batch], None] | None = None,
    ) -> None:
        self._routes = routes
        self._base = base
        self._replicas = replicas
        self._observe = observe
        self._line: Line | None = None
        self._connecting: asyncio.Task[Line] | None = None

    async def call(self, *commands: Sequence[Any], writes: bool = False) -> list[Any]:
        """The answers of some commands, one after another. Raises Lost."""
        line = self._line
        if line is None or line.dead:
            line = await self._connected()
        try:
            answers = await line.call(commands, writes=writes)
        except Lost:
            self._routes.doubt()
            raise
        for answer in answers:
            if isinstance(answer, Refused) and not str(answer).startswith("NOSCRIPT"):
                words = str(answer)
                if words.startswith(MOVING):
                    self._routes.doubt()
                    line.abort()
                raise Lost(words, sent=False)
        return answers

    async def run(self, script: Script, *args: Any, writes: bool = True) -> Any:
        """A script's answer. Raises Lost."""
        keys = (1, self._base, *args)
        (answer,) = await self.call(("EVALSHA", script.sha, *keys), writes=writes)
        if isinstance(answer, Refused):  # after a restart or SCRIPT FLUSH: Redis keeps the source
            (answer,) = await self.call(("EVAL", script.source, *keys), writes=writes)
        return answer

    async def _connected(self) -> Line:
        """A new connection, for all who wait for it."""
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        try:
            return await asyncio.shield(self._connecting)
        except (OSError, Refused, RedisError) as error:
            raise Lost(str(error) or "it does not answer", sent=False) from error

    async def _connect(self) -> Line:
        try:
            make = partial(Line, self._replicas, self._observe)
            self._line = await self._routes.dial(self._base, make)
            return self._line
        except BaseException:
            self._routes.doubt()
            raise
        finally:
            self._connecting = None

    def close(self) -> None:
        """Disconnect."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._line is not None:
            self._line.abort()
            self._line = None
