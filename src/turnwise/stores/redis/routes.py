"""Routes: the servers of a Redis or a Cluster, and connections to them.

A single server holds all partitions; in a Cluster each partition is on the master of its slot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError

from turnwise.errors import ConfigurationError
from turnwise.stores.redis.line import Line
from turnwise.urls import masked

log = logging.getLogger("turnwise.store")

CONNECT = 0.8
"""Seconds to connect and to log in."""
LOOKS = (0.25, 1.0, 4.0)
"""Seconds that one node of a Cluster has to report the slots, while other nodes may also know them;
if none answers in time, the second round allows more: TLS over a slow network takes longer."""


class Routes:
    """Which server holds which partition: one for all, or the masters of a Cluster.

    `doubts` counts lost connections. After each, the server of a partition may have lost its latest
    data, so our cached knowledge of it is invalid.
    """

    def __init__(self, url: str) -> None:
        try:
            pool = ConnectionPool.from_url(
                url,
                protocol=2,
                socket_connect_timeout=1.0,
                socket_timeout=None,
                retry=Retry(NoBackoff(), 0),
            )
            self._make: type[Any] = pool.connection_class
            self._kwargs = dict(pool.connection_kwargs)
            self._make(**self._kwargs)  # sends nothing: it only checks its parameters
        except (TypeError, ValueError) as error:
            words = str(error).replace("AbstractConnection.__init__() got an ", "")
            raise ConfigurationError(f"{masked(url)!r}: {words}") from None
        first = (self._kwargs.get("host", "localhost"), self._kwargs.get("port", 6379))
        self._known: list[tuple[str, int]] = [first]
        self._looking = asyncio.Lock()
        self._slots: list[tuple[int, int, tuple[str, int], int]] = []
        self.cluster = False
        self.doubts = 0
        self._stale = True

    async def connect(self, base: bytes | None = None) -> Connection:
        """A connection to the server that holds the partition `base`, or to any server."""
        return await self._dial(await self._address(base))

    async def dial(self, base: bytes, make: Callable[[], Line]) -> Line:
        """A connection by a protocol of our own, logged in. Raises OSError, Refused of the line."""
        kwargs = self._arguments(await self._address(base))
        login: list[Sequence[Any]] = []
        if kwargs.get("username") or kwargs.get("password"):
            user = (kwargs["username"],) if kwargs.get("username") else ()
            login.append(("AUTH", *user, kwargs.get("password") or ""))
        if kwargs.get("db"):
            login.append(("SELECT", kwargs["db"]))
        login.append(("PING",))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT):
            if path := kwargs.get("path"):
                _, line = await loop.create_unix_connection(make, path)
            else:
                # The library knows what its own parameters say of certificates.
                tls = getattr(self._make(**kwargs), "ssl_context", None)
                host, port = kwargs.get("host", "localhost"), kwargs.get("port", 6379)
                _, line = await loop.create_connection(make, host, port, ssl=tls and tls.get())
            try:
                answers = await line.call(login, writes=False)
            except BaseException:
                line.abort()
                raise
        for answer in answers:
            if isinstance(answer, Exception):
                line.abort()
                raise answer
        return line

    async def _address(self, base: bytes | None) -> tuple[str, int] | None:
        """The address of the partition `base` in a Cluster."""
        if base is None or not self.cluster:
            return None
        await self._look()
        slot = key_slot(base)
        for first, last, address, _ in self._slots:
            if first <= slot <= last:
                return address
        self._stale = True
        raise ConnectionError("No server of the Cluster holds this partition.")

    def _arguments(self, address: tuple[str, int] | None) -> dict[str, Any]:
        if address is None:
            return self._kwargs
        return {**self._kwargs, "host": address[0], "port": address[1]}

    def doubt(self) -> None:
        """Ask for the slots again before the next connection is opened."""
        self._stale = True
        self.doubts += 1

    async def layout(self) -> list[tuple[tuple[str, int], int, int]]:
        """The masters of the Cluster, the slots of each, and how many replicas it has."""
        self.doubt()
        await self._look()
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for first, last, address, replicas in self._slots:
            found[address] = (found.get(address, (0, 0))[0] + last - first + 1, replicas)
        return [(address, *counts) for address, counts in sorted(found.items())]

    async def _dial(self, address: tuple[str, int] | None) -> Connection:
        connection: Connection = self._make(**self._arguments(address))
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _look(self) -> None:
        """Ask the known servers, one by one, which master has which slots, unless that is known.

        A server that is asked is first moved to the end of the list, so that a hanging server is
        not asked again and again.
        """
        async with self._looking:
            for patience in LOOKS:
                if self._stale:
                    await self._ask_around(patience)

    async def _ask_around(self, patience: float) -> None:
        trouble: Exception = ConnectionError("No server of the Cluster answers.")
        slow = False
        for _ in range(len(self._known)):
            address = self._known.pop(0)
            self._known.append(address)
            try:
                async with asyncio.timeout(patience):
                    self._remember(await self._slots_of(address), address)
                return
            except (RedisError, OSError) as error:
                trouble, slow = error, slow or isinstance(error, TimeoutError)
        if patience == LOOKS[-1] or not slow:
            raise trouble

    async def _slots_of(self, address: tuple[str, int]) -> Any:
        connection = await self._dial(address)
        try:
            await connection.send_command("CLUSTER", "SLOTS")
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)

    def _remember(self, found: Any, asked: tuple[str, int]) -> None:
        known, slots = [], []
        for first, last, *nodes in found:
            addresses = [((node[0] or b"").decode() or asked[0], int(node[1])) for node in nodes]
            known += addresses
            slots.append((int(first), int(last), addresses[0], len(addresses) - 1))
        # Known servers stay in the list: one that is down now may later be the only one left.
        self._known = list(dict.fromkeys([*known, *self._known]))[:50]
        self._slots = slots
        self._stale = False
