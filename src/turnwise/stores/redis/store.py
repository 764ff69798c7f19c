"""The Redis store: many machines, one Redis or a Cluster.

The rules are in stores/rules/, and driver.py says what Redis is beneath them. The script that
commits an act also notifies other processes, through Redis's channels.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.exceptions import RedisError

from turnwise.batching import Batch
from turnwise.conversation import Session
from turnwise.errors import ConfigurationError, StoreUnavailable
from turnwise.stores import rules
from turnwise.stores.claim import Claim, Desk
from turnwise.stores.driver import Lost
from turnwise.stores.header import readable
from turnwise.stores.notices import Moved, Notice, Ready, Signal
from turnwise.stores.records import Busy, Place, Submission, Submitted, is_many
from turnwise.stores.redis import diagnostics, layout1
from turnwise.stores.redis.driver import RedisDriver
from turnwise.stores.redis.housekeeping import Housekeeping
from turnwise.stores.redis.keys import Names, decoded, encoded
from turnwise.stores.redis.link import Link
from turnwise.stores.redis.routes import Routes
from turnwise.stores.redis.subscriber import Subscriber
from turnwise.stores.remote import RemoteStore
from turnwise.stores.rules import Changes
from turnwise.stores.whole import Whole
from turnwise.urls import masked

log = logging.getLogger("turnwise.store")

SCHEMA = 2
CLUSTER_PARTITIONS = 16
"""The default number of partitions on a Cluster."""
COMPARE = 5.0
"""Seconds between two comparisons of what was heard of followed sessions with their headers."""
PAGE = 500
"""Sessions per request."""


class RedisStore(RemoteStore):
    """Sessions in the Redis, or Cluster, at `url`: redis://, rediss:// or unix://.

    In addition to redis-py's parameters the URL may contain `?prefix=` (of all keys; default
    "turnwise"), `?partitions=` (default 1 on a single Redis, 16 on a Cluster; fixed on first use)
    and `?replicas=` (how many must confirm before data is acknowledged; default 0). `observe` is
    called for each group of calls. `shift()` is added to Redis's clock, in seconds: for tests.
    """

    driver: RedisDriver

    def __init__(
        self,
        url: str,
        *,
        observe: Callable[[Batch], None] | None = None,
        shift: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        parts = urlsplit(url.strip())
        database = parts.path.strip("/")
        if parts.scheme != "unix" and database and not database.isdecimal():
            raise ConfigurationError(
                f"{masked(url)!r}: the path after the server must be a database number."
            )
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._prefix = query.pop("prefix", "turnwise")
        if not self._prefix or set("{}:") & set(self._prefix):
            raise ConfigurationError("prefix= must be a text without braces and colons.")
        self._wanted = _number(query, "partitions", 1, 1024)
        self._replicas = _number(query, "replicas", 0, 16) or 0
        self._routes = Routes(urlunsplit(parts._replace(query=urlencode(query))))
        self._observe = observe
        self._shift = shift
        self._secret = b""
        self._subscribers: list[Subscriber] = []
        self._comparing: asyncio.Task[None] | None = None

    # Life

    async def open(self) -> None:
        try:
            async with asyncio.timeout(5.0):
                found = await diagnostics.look(self._routes)
                self._routes.cluster = found.cluster
                names = Names(self._prefix, await self._agree(found.cluster))
                publish = "SPUBLISH" if found.sharded else "PUBLISH"
                links = [
                    Link(self._routes, base, replicas=self._replicas, observe=self._observe)
                    for base in names.bases
                ]
                self.driver = RedisDriver(self._routes, names, links, publish, self._shift)
                try:
                    await self.driver.set_clock()
                except BaseException:
                    self.driver.close()
                    raise
        except (RedisError, OSError, TimeoutError, Lost) as error:
            reason = str(error) or "it does not answer"
            raise StoreUnavailable(f"Cannot reach Redis: {reason}") from error
        origin = b"%d" % self.driver.origin
        for number, base in enumerate(names.bases):
            tell = partial(self._heard, number)
            subscriber = Subscriber(self._routes, base, origin, tell, sharded=found.sharded)
            self._subscribers.append(subscriber)
            subscriber.start()
        self._comparing = asyncio.get_running_loop().create_task(self._compare_forever())
        self._describe(found)

    def _describe(self, found: diagnostics.Found) -> None:
        self.durability = found.durability
        if self._replicas:
            self.durability += f" {self._replicas} replicas have it before it is acknowledged."
        log.info("%s. %s", found.version, self.durability)
        for warning in found.warnings:
            log.warning("%s", warning)

    async def _agree(self, cluster: bool) -> int:
        """Read, or create, the facts that all processes share; returns the partition count."""
        fresh = {
            "schema": SCHEMA,
            "partitions": self._wanted or (CLUSTER_PARTITIONS if cluster else 1),
            "secret": secrets.token_bytes(32),
        }
        schema, partitions, self._secret = await self._facts(fresh)
        if int(schema) > SCHEMA:
            raise ConfigurationError(
                f"This Redis was written by a newer Turnwise (schema {int(schema)})."
            )
        if int(schema) == layout1.SCHEMA:
            raise ConfigurationError(
                "The sessions in this Redis were written by an older Turnwise. Stop its processes "
                "and move the sessions to a new prefix:\n"
                "  turnwise sessions export --all --whole --store 'redis://...' | "
                "turnwise sessions import --store 'redis://...?prefix=new'"
            )
        if self._wanted not in (None, int(partitions)):
            raise ConfigurationError(
                f"The sessions in this Redis are in {int(partitions)} partitions, not "
                f"{self._wanted}; the number is fixed when a store is first used."
            )
        return int(partitions)

    async def _facts(self, fresh: Mapping[str, Any]) -> list[Any]:
        """The shared facts; those that do not exist yet get the value in `fresh`, if it has one."""
        first = Names(self._prefix, 1)
        connection = await self._routes.connect(first.bases[0])
        try:
            for name, value in fresh.items():
                if value is not None:
                    await connection.send_command("HSETNX", first.meta, name, value)
                    await connection.read_response()
            await connection.send_command("HMGET", first.meta, *fresh)
            found: list[Any] = await connection.read_response()
            return found
        finally:
            await connection.disconnect()

    async def earlier(self) -> tuple[bytes, AsyncIterator[Whole]] | None:
        try:
            async with asyncio.timeout(5.0):
                self._routes.cluster = (await diagnostics.look(self._routes)).cluster
                known = dict.fromkeys(("schema", "partitions", "secret"))
                schema, partitions, secret = await self._facts(known)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Cannot reach Redis: {error}") from error
        if int(schema or 0) != layout1.SCHEMA:
            return None
        return secret, layout1.sessions(self._routes, Names(self._prefix, int(partitions)))

    async def close(self) -> None:
        await self.finish_tasks()
        if self._comparing is not None:
            self._comparing.cancel()
            await asyncio.gather(self._comparing, return_exceptions=True)
        for subscriber in self._subscribers:
            await subscriber.stop()
        self._subscribers.clear()
        self.driver.close()

    # Telling and hearing

    def _tell(self, session: str, changes: Changes) -> None:
        if any(isinstance(notice, Ready) for notice in changes.notices):
            self.driver.hint(self.driver.names.partition(session))
        header = changes.header
        if self.driver.limited and header is not None and header.owner is not None:
            self.driver.hint_all()
        super()._tell(session, changes)

    def told_nobody(self, session: str) -> None:
        self.driver.hint(self.driver.names.partition(session))
        super().told_nobody(session)

    def _heard(self, number: int, found: Iterable[Notice]) -> None:
        """Another process has told something in a partition."""
        told = list(found)
        if any(isinstance(notice, Ready) for notice in told):
            self.driver.hint(number)
        self.listeners.tell(told)

    def follow(self, session: str) -> None:
        if self._subscribers:
            self._subscribers[self.driver.names.partition(session)].follow(session)

    def unfollow(self, session: str) -> None:
        if self._subscribers:
            self._subscribers[self.driver.names.partition(session)].unfollow(session)

    async def submit(
        self,
        submission: Submission,
        desk: Desk | None = None,
        take: Callable[[Claim | None], None] | None = None,
    ) -> Submitted:
        if (
            desk is None and self._subscribers
        ):  # another process will answer, and its events are expected soon
            number = self.driver.names.partition(submission.session)
            self._subscribers[number].hurry(submission.session)
        return await super().submit(submission, desk, take)

    async def _compare_forever(self) -> None:
        """See what no channel has told, and how late it is there."""
        while True:
            await asyncio.sleep(COMPARE)
            try:
                await self.driver.set_clock()
                for subscriber in self._subscribers:
                    followed = subscriber.followed
                    for start in range(0, len(followed), PAGE):
                        await self._compare(followed[start : start + PAGE])
            except Lost:
                pass
            except Exception:
                log.exception("cannot compare what was heard with what is there")

    async def _compare(self, sessions: list[str]) -> None:
        found = await self.driver.headers(sessions)
        for session, body in zip(sessions, found, strict=True):
            header = readable(body)
            if body is None:
                self.listeners.tell([Signal("gone", session)])
            elif header is not None:
                self.listeners.tell([Moved(session, header.events)])

    # Sessions

    async def secret(self) -> bytes:
        return self._secret

    async def adopt(self, secret: bytes) -> None:
        link, meta = self.driver.links[0], self.driver.names.meta
        await self.ask(lambda: link.call(("HSET", meta, "secret", secret), writes=True))
        self._secret = secret

    async def sessions(self, *, after: str = "", limit: int = 100) -> list[Session]:
        names = await self.ask(lambda: self.driver.listed(after, limit))
        found = await asyncio.gather(*(self.session(name) for name in names))
        return [session for session in found if session is not None]

    async def ids(self, *, after: str = "", limit: int = 100) -> list[str]:
        found: list[str] = await self.ask(lambda: self.driver.listed(after, limit, rules.kept))
        return found

    async def owned(self, owner: str, *, before: Place | None, limit: int) -> list[Session]:
        names = await self.ask(lambda: self.driver.owned(owner, before, limit))
        found = await asyncio.gather(*(self.session(name) for name in names))
        return [session for session in found if session is not None and session.owner == owner]

    async def publish(self, name: str, value: bytes | None) -> None:
        link, meta = self.driver.links[0], self.driver.names.meta
        act: tuple[Any, ...] = ("HDEL", meta, encoded(name))
        if value is not None:
            act = ("HSET", meta, encoded(name), value)
        await self.ask(lambda: link.call(act, writes=True))

    async def published(self, names: str) -> dict[str, bytes]:
        link, meta = self.driver.links[0], self.driver.names.meta
        if not is_many(names):
            (value,) = await self.ask(lambda: link.call(("HGET", meta, encoded(names))))
            return {} if value is None else {names: value}
        found: dict[str, bytes] = {}
        cursor: Any = b"0"
        while True:
            scan = ("HSCAN", meta, cursor, "COUNT", PAGE)
            ((cursor, page),) = await self.ask(partial(link.call, scan))
            every = zip(map(decoded, page[::2]), page[1::2], strict=True)
            found |= {name: value for name, value in every if name.startswith(names)}
            if not int(cursor):
                return found

    async def ping(self) -> None:
        proof = secrets.token_hex(6)
        await self.ask(lambda: self.driver.prove(proof))

    async def waiting(self) -> int:
        found: int = await self.ask(self.driver.waiting)
        return found

    async def busy(self, limit: int) -> list[Busy]:
        found: list[Busy] = await self.ask(lambda: self.driver.busy(limit))
        return found

    async def outbox(self, channel: str, limit: int) -> list[str]:
        found: list[str] = await self.ask(lambda: self.driver.outbox(channel, limit))
        return found

    async def failing(self, limit: int) -> list[str]:
        found: list[str] = await self.ask(lambda: self.driver.failing(limit))
        return found

    async def facts(self) -> dict[str, str]:
        try:
            async with asyncio.timeout(5.0):
                found = await diagnostics.look(self._routes)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Cannot reach Redis: {error}") from error
        names = self.driver.names
        more = {"partitions": str(names.partitions), "keys": f"{self._prefix}:*"}
        return {**found.facts, **more, "durability": self.durability}

    async def sweep(self, *, retention: float, limit: int = 200) -> int:
        housekeeping = Housekeeping(self.driver)
        # What is found and has no header: it was evicted, or somebody has deleted its keys.
        deleted = await self._expire(
            lambda: self.ask(lambda: self.driver.expired(limit)),
            lambda session: self.ask(lambda: self.driver.drop(session)),
        )
        cutoff = self.driver.now() - retention
        await self.ask(housekeeping.erase)
        await self.ask(lambda: housekeeping.trim(cutoff))
        return deleted


def _number(query: dict[str, str], name: str, least: int, most: int) -> int | None:
    """A whole number that the URL may name."""
    text = query.pop(name, None)
    if text is None:
        return None
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ConfigurationError(f"{name}= must be from {least} to {most}, not {text!r}.")
    return int(text)
