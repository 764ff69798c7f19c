"""Partitions: this process's links to all parts of the sessions in Redis, and its ears.

A single Redis has one partition, a Cluster several, so that its servers share the work. This module
decides where a session is, how to treat an act whose answer was lost, and what notices follow.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.exceptions import RedisError

from turnwise.batching import Batch
from turnwise.errors import ConfigurationError, StoreUnavailable
from turnwise.stores.notices import Listeners, Moved, Notice, Ready, Signal
from turnwise.stores.redis import diagnostics
from turnwise.stores.redis.answers import Names, notices, refusal
from turnwise.stores.redis.pipeline import Call, Link, Routes, Script
from turnwise.stores.redis.subscriber import Subscriber
from turnwise.urls import masked

T = TypeVar("T")
log = logging.getLogger("turnwise.store")

ACTS = (
    "append", "cancel", "claim", "create", "delete", "disown", "finish", "forget", "hold", "prove",
    "release", "renew", "reset", "rotate", "save", "submit", "sweep", "update",
)  # fmt: skip
READINGS = (
    "backlog", "history", "log", "session", "sessions", "state", "tails", "turn", "turns",
    "waiting",
)  # fmt: skip
SCRIPTS = {
    **{name: Script(name) for name in ACTS},
    **{name: Script(name, reads=True) for name in READINGS},
}
SCHEMA = 1
CLUSTER_PARTITIONS = 16
"""The default number of partitions on a Cluster."""
LINES = 2
"""Links per partition: while Redis executes one pipeline, the next is written."""
FULL_LOOK = 0.4
"""Seconds after which a worker looks for work in all partitions, announced or not."""
TAIL_CHECK = 5.0
"""Seconds between two comparisons of received events with the ends of the logs."""
PAGE = 500
"""Sessions per request."""
DOUBT = 5.0
"""Seconds during which a claim that we may hold without knowing is released."""


class Partitions:
    """All partitions of the Redis at `url`, whose parameters redis.py explains."""

    def __init__(
        self,
        url: str,
        *,
        observe: Callable[[Batch], None] | None,
        shift: Callable[[], float] | None,
    ) -> None:
        parts = urlsplit(url.strip())
        database = parts.path.strip("/")
        if parts.scheme != "unix" and database and not database.isdecimal():
            raise ConfigurationError(
                f"{masked(url)!r}: the path after the server must be a database number."
            )
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.prefix = query.pop("prefix", "turnwise")
        if not self.prefix or set("{}:") & set(self.prefix):
            raise ConfigurationError("prefix= must be a text without braces and colons.")
        self._wanted = _number(query, "partitions", 1, 1024)
        self.replicas = _number(query, "replicas", 0, 16) or 0
        self._routes = Routes(urlunsplit(parts._replace(query=urlencode(query))))
        self._observe = observe
        self._shift = shift
        self.listeners = Listeners()
        self._origin = b""
        self._links: list[list[Link]] = []
        self._subscribers: list[Subscriber] = []
        self._hinted: set[int] = set()
        self._full_look = 0.0
        self._doubtful: dict[str, tuple[int, float]] = {}
        self._chores: list[asyncio.Task[None]] = []
        self.secret = b""

    @property
    def count(self) -> int:
        """The number of partitions."""
        return self._names.partitions

    @property
    def incarnation(self) -> int:
        """A number that changes whenever our cached knowledge of Redis may be invalid."""
        return self._routes.doubts

    def of(self, session: str) -> tuple[int, bytes]:
        """The partition of a session, and its id as bytes."""
        return self._names.partition(session)

    # Life

    async def open(self) -> diagnostics.Found:
        """Connect. Returns the diagnostics; raises StoreUnavailable and ConfigurationError."""
        self._origin = secrets.token_hex(6).encode()
        try:
            async with asyncio.timeout(5.0):
                found = await diagnostics.look(self._routes)
                self._routes.cluster = found.cluster
                self._names = Names(self.prefix, await self._agree(found.cluster))
        except (RedisError, OSError, TimeoutError) as error:
            reason = str(error) or "it does not answer"
            raise StoreUnavailable(f"Cannot reach Redis: {reason}") from error
        publish = b"SPUBLISH" if found.sharded else b"PUBLISH"
        for number, base in enumerate(self._names.bases):
            links = [
                Link(
                    self._routes,
                    base,
                    self._origin,
                    publish,
                    repeated=partial(self.repeated, number),
                    replicas=self.replicas,
                    observe=self._observe,
                    shift=self._shift,
                )
                for _ in range(LINES)
            ]
            tell = partial(self._tell, number)
            subscriber = Subscriber(self._routes, base, self._origin, tell, sharded=found.sharded)
            self._links.append(links)
            self._subscribers.append(subscriber)
            subscriber.start()
        loop = asyncio.get_running_loop()
        self._chores = [
            loop.create_task(self._check_tails()),
            loop.create_task(self._disown_forever()),
        ]
        return found

    async def _agree(self, cluster: bool) -> int:
        """Read, or create, the facts that all processes share; returns the partition count."""
        default = CLUSTER_PARTITIONS if cluster else 1
        fresh = {
            "schema": SCHEMA,
            "partitions": self._wanted or default,
            "secret": secrets.token_bytes(32),
        }
        first = Names(self.prefix, 1)
        connection = await self._routes.connect(first.bases[0])
        try:
            for name, value in fresh.items():
                await connection.send_command("HSETNX", first.meta, name, value)
                await connection.read_response()
            await connection.send_command("HMGET", first.meta, *fresh)
            found: list[bytes] = await connection.read_response()
            schema, partitions, self.secret = found
        finally:
            await connection.disconnect()
        if int(schema) > SCHEMA:
            raise ConfigurationError(
                f"This Redis was written by a newer Turnwise (schema {int(schema)})."
            )
        if self._wanted not in (None, int(partitions)):
            raise ConfigurationError(
                f"The sessions in this Redis are in {int(partitions)} partitions, not "
                f"{self._wanted}; the number is fixed when a store is first used."
            )
        return int(partitions)

    async def look(self) -> diagnostics.Found:
        """The current diagnostics. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(5.0):
                return await diagnostics.look(self._routes)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Cannot reach Redis: {error}") from error

    async def close(self) -> None:
        """Finish the pending calls and disconnect."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for subscriber in self._subscribers:
            await subscriber.stop()
        for link in chain.from_iterable(self._links):
            await link.close()
        self._subscribers.clear()
        self._links.clear()

    # Asking

    def ask(
        self,
        number: int,
        name: str,
        ident: bytes,
        args: Sequence[Any] = (),
        shape: Callable[[Any], Any] | None = None,
    ) -> asyncio.Future[Any]:
        """The result of a script in a partition, converted by `shape`."""
        settle = partial(self._settle, number, shape)
        # A session's calls use one link, so that they are executed in order of arrival.
        link = self._links[number][zlib.crc32(ident) // self.count % LINES]
        return link.submit(Call(SCRIPTS[name], ident, args, settle))

    def about(
        self, name: str, session: str, *args: Any, shape: Callable[[Any], Any] | None = None
    ) -> asyncio.Future[Any]:
        """The result of a script about one session."""
        number, ident = self.of(session)
        return self.ask(number, name, ident, args, shape)

    def each(self, name: str, *args: Any) -> list[asyncio.Future[Any]]:
        """The results of a script in every partition."""
        return [self.ask(number, name, b"", args) for number in range(self.count)]

    def _settle(self, number: int, shape: Callable[[Any], Any] | None, found: Any) -> Any:
        """Decode a script's answer and deliver its notices, even if no caller waits."""
        if isinstance(found, Exception):
            return found
        code, result, caused = found
        if code != b"ok":
            return refusal(code)
        made = result if shape is None else shape(result)
        if caused:
            self._tell(number, notices(caused))
        return made

    # Telling

    def repeated(self, number: int, ident: bytes) -> None:
        """A call for this session was repeated; the notices of its first run were lost."""
        told: list[Notice] = [Ready()]
        if ident:
            told.append(Moved(ident.decode("utf-8", "surrogatepass")))
        self._tell(number, told)

    def _tell(self, number: int, found: Iterable[Notice]) -> None:
        told = list(found)
        if any(isinstance(notice, Ready) for notice in told):
            self._hinted.add(number)
        self.listeners.tell(told)

    def hint(self, numbers: Iterable[int]) -> None:
        """There may be more turns in these partitions."""
        self._hinted.update(numbers)

    def hinted(self) -> set[int]:
        """The partitions in which turns were announced since the last call; sometimes all."""
        now, hinted = time.monotonic(), self._hinted
        self._hinted = set()
        if hinted and now - self._full_look <= FULL_LOOK:
            return hinted
        self._full_look = now
        return set(range(self.count))

    # Following

    def follow(self, session: str) -> None:
        """Receive the events of other processes in `session`."""
        if self._subscribers:
            self._subscribers[self.of(session)[0]].follow(session)

    def unfollow(self, session: str) -> None:
        """One follower less."""
        if self._subscribers:
            self._subscribers[self.of(session)[0]].unfollow(session)

    def hurry(self, session: str) -> None:
        """Events of another process are expected soon, if it is followed."""
        self._subscribers[self.of(session)[0]].hurry(session)

    async def _check_tails(self) -> None:
        """Regularly compare the received events with the ends of the logs."""
        while True:
            await asyncio.sleep(TAIL_CHECK)
            for number, subscriber in enumerate(self._subscribers):
                followed = subscriber.followed
                for start in range(0, len(followed), PAGE):
                    try:
                        await self._compare(number, followed[start : start + PAGE])
                    except StoreUnavailable:
                        pass
                    except Exception:
                        log.exception("cannot compare the ends of logs")

    async def _compare(self, number: int, sessions: list[str]) -> None:
        found = await self.ask(number, "tails", b"", [one.encode() for one in sessions])
        self.listeners.tell(
            Signal("gone", session) if last < 0 else Moved(session, last)
            for session, last in zip(sessions, found, strict=True)
        )

    # Doubt

    def doubt(self, number: int, token: str) -> None:
        """A claim with this token was requested without an answer: Redis may still grant it."""
        self._doubtful[token] = number, time.monotonic() + DOUBT

    async def _disown_forever(self) -> None:
        """Release claims that we may hold without knowing: else they last until the lease ends."""
        while True:
            await asyncio.sleep(0.5)
            for token, (number, until) in list(self._doubtful.items()):
                try:
                    await self.ask(number, "disown", b"", (token,))
                except StoreUnavailable:
                    self.doubt(number, token)  # retry when Redis is available again
                except Exception:
                    log.exception("cannot release a claim")
                else:
                    if time.monotonic() > until:
                        self._doubtful.pop(token, None)


async def those_that_answer(asked: Iterable[Awaitable[T]]) -> list[T]:
    """The results of the partitions that answer; raises StoreUnavailable if none does."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    good: list[T] = []
    for result in found:
        if not isinstance(result, BaseException):
            good.append(result)
        elif not isinstance(result, StoreUnavailable) or len(found) == 1:
            raise result
    if found and not good:
        raise StoreUnavailable()
    return good


def _number(query: dict[str, str], name: str, least: int, most: int) -> int | None:
    """A whole number that the URL may name."""
    text = query.pop(name, None)
    if text is None:
        return None
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ConfigurationError(f"{name}= must be from {least} to {most}, not {text!r}.")
    return int(text)
