"""Subscriber: receives the notices of other processes in one partition, on one connection.

Redis's channels are a hint and may lose messages. So each message names its position in the log,
and if some could have been lost (a new subscription, a new connection) the subscriber notifies the
followers, which then read the log. In addition, the store compares the ends of the logs of all
followed sessions every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from redis.asyncio import Connection
from redis.exceptions import RedisError

from turnwise.stores.notices import Appended, Moved, Notice, Ready, Signal
from turnwise.stores.redis.keys import TOLD, decoded, encoded, unpack
from turnwise.stores.redis.routes import Routes

log = logging.getLogger("turnwise.store")

AGE = 0.02
"""Seconds by which a subscription is delayed: a turn that this process answers faster needs no
subscription in Redis."""
SILENCE = 5.0
"""Seconds of silence after which the subscriber checks the connection."""
PAUSE = 0.2
"""Seconds between two attempts to connect."""


class Subscriber:
    """The channels of the partition `base`. `tell` gets the notices; `origin` is our own number.

    `sharded` is whether the Cluster supports sharded channels.
    """

    def __init__(
        self,
        routes: Routes,
        base: bytes,
        origin: bytes,
        tell: Callable[[Iterable[Notice]], None],
        *,
        sharded: bool,
    ) -> None:
        self._routes = routes
        self._base = base
        self._origin = origin
        self._tell = tell
        prefix = b"S" if sharded else b""
        self._subscribe, self._unsubscribe = prefix + b"SUBSCRIBE", prefix + b"UNSUBSCRIBE"
        self._followed: dict[str, int] = {}
        self._subscribed: set[str] = set()
        self._due: deque[tuple[float, str]] = deque()
        self._timer: asyncio.Handle | None = None
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def followed(self) -> list[str]:
        """The followed sessions."""
        return list(self._followed)

    def start(self) -> None:
        """Start to listen."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._listen(), name="turnwise-subscriber")

    async def stop(self) -> None:
        """Stop listening."""
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._writing, self._task):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        if self._connection is not None:
            await self._connection.disconnect()

    # Followed sessions

    def follow(self, session: str) -> None:
        """Follow `session`; a recheck covers the events before the subscription is active."""
        count = self._followed.get(session, 0)
        self._followed[session] = count + 1
        if not count:
            self._change(session)

    def unfollow(self, session: str) -> None:
        """One follower less."""
        count = self._followed.pop(session, 0)
        if count > 1:
            self._followed[session] = count - 1
        else:
            self._change(session)

    def hurry(self, session: str) -> None:
        """Subscribe to `session` now."""
        if self._connection is not None and self._writing is None:
            self._tell_redis([session])

    def _change(self, session: str) -> None:
        loop = asyncio.get_running_loop()
        self._due.append((loop.time() + AGE, session))
        if self._timer is None:
            self._timer = loop.call_later(AGE, self._flush)

    def _flush(self) -> None:
        """Send the due subscription changes, by their current state."""
        loop = asyncio.get_running_loop()
        self._timer, now, changed = None, loop.time(), []
        if self._writing is None and self._connection is not None:
            while self._due and self._due[0][0] <= now:
                changed.append(self._due.popleft()[1])
            self._tell_redis(changed)
        if self._due and self._connection is not None:  # a new connection subscribes to all
            self._timer = loop.call_later(AGE / 2, self._flush)

    def _tell_redis(self, changed: Iterable[str]) -> None:
        """Subscribe to followed sessions, unsubscribe from those that are no longer followed."""
        begun = {s for s in changed if s in self._followed} - self._subscribed
        ended = {s for s in changed if s not in self._followed} & self._subscribed
        self._subscribed |= begun
        self._subscribed -= ended
        commands = [(self._subscribe, *map(self._channel, begun))] if begun else []
        commands += [(self._unsubscribe, *map(self._channel, ended))] if ended else []
        if commands:
            self._writing = asyncio.get_running_loop().create_task(self._write(commands))

    async def _write(self, commands: list[tuple[bytes, ...]]) -> None:
        connection = self._connection
        try:
            if connection is not None:
                packed = connection.pack_commands(commands)
                await connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError):
            pass  # the listening task also notices the broken connection, and reconnects
        finally:
            self._writing = None

    def _channel(self, session: str) -> bytes:
        return self._base + b"c:" + encoded(session)

    # Hearing

    async def _listen(self) -> None:
        broken = False
        while True:
            try:
                await self._begin()
                broken = False
                await self._hear_on()
            except (RedisError, OSError, TimeoutError) as error:
                if not broken:
                    log.warning("not listening to Redis: %s", error or type(error).__name__)
                broken = True
                self._routes.doubt()
            except Exception:
                log.exception("cannot listen to Redis")
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.disconnect(nowait=True)
            await asyncio.sleep(PAUSE)

    async def _begin(self) -> None:
        async with asyncio.timeout(2.0):
            connection = await self._routes.connect(self._base)
        self._due.clear()
        self._subscribed = set(self._followed)
        channels = [self._base + b"signals", *map(self._channel, self._followed)]
        packed = connection.pack_commands([(self._subscribe, *channels)])
        self._connection = connection
        await connection.send_packed_command(packed, check_health=False)

    async def _hear_on(self) -> None:
        assert self._connection is not None
        connection, asked = self._connection, False
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    found = await connection.read_response(disconnect_on_error=False)
                asked = False
            except TimeoutError:
                if asked:
                    raise
                asked = True
                await connection.send_command("PING", check_health=False)
                continue
            self._hear(found)

    def _hear(self, found: Any) -> None:
        kind = found[0]
        if kind in (b"message", b"smessage"):
            _, channel, payload = found
            if channel == self._base + b"signals":
                self._signal(payload)
            else:
                self._events(decoded(channel[len(self._base) + 2 :]), payload)
        elif kind in (b"subscribe", b"ssubscribe"):
            if found[1] == self._base + b"signals":
                self._tell([Ready()])
            else:
                self._tell([Moved(decoded(found[1][len(self._base) + 2 :]))])
        elif kind == b"sunsubscribe" and found[1] == self._base + b"signals":
            raise ConnectionError("the partition has moved to another server")

    def _signal(self, payload: bytes) -> None:
        origin, _, text = payload.partition(TOLD)
        kind, turn, session = text.split(b"\n", 2)
        if origin == self._origin or kind == b"proof":
            return
        if kind == b"ready":
            self._tell([Ready()])
        else:
            self._tell([Signal(kind.decode(), decoded(session), int(turn))])  # type: ignore[arg-type]

    def _events(self, session: str, payload: bytes) -> None:
        origin, *values = payload.split(TOLD)
        if origin != self._origin:
            self._tell([Appended(session, [unpack(value) for value in values])])
