"""Link: this process's connection to one partition of the sessions in Redis.

Concurrent calls share one pipeline. A call whose answer was lost is repeated, marked as repeated,
until it is answered or `PATIENCE` is over: the scripts do nothing twice. Callers get
StoreUnavailable after `PATIENCE`; while Redis is known to be unavailable, sooner.

Nothing here waits for a reader: readers are served by the subscriber (subscriber.py) and the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from turnwise.batching import Batch, Batcher
from turnwise.errors import ConfigurationError, StoreUnavailable
from turnwise.urls import masked

log = logging.getLogger("turnwise.store")

PATIENCE = 1.4
"""Seconds without an answer until a caller gets StoreUnavailable."""
BRIEF = 0.4
"""The same while Redis is known to be unavailable."""
PAUSE = 0.05
"""Seconds between two attempts."""
LOOKS = (0.25, 1.0, 4.0)
"""Seconds that one node of a Cluster has to report the slots, while other nodes may also know them;
if none answers in time, the second round allows more: TLS over a slow network takes longer."""
BATCH = 16
"""Maximum calls per pipeline: few enough that two links overlap, enough to share its cost."""
PASSING = (MovedError, AskError, TryAgainError, ClusterDownError, MasterDownError, ReadOnlyError)
"""A Cluster's answers while it is being reconfigured."""


class Unanswered(Exception):
    """A call was sent and its answer was lost: it may have been done."""


class Script:
    """An act in lua/, with what all acts share before it. `reads`: it changes nothing."""

    _common = resources.files(__package__).joinpath("lua", "common.lua").read_text()

    def __init__(self, name: str, *, reads: bool = False) -> None:
        self.reads = reads
        own = resources.files(__package__).joinpath("lua", f"{name}.lua").read_text()
        self.source = self._with_what_it_uses(own).encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()

    def _with_what_it_uses(self, own: str) -> str:
        """Only the needed functions: each one before a script costs time on every run."""
        parts = [own]
        for part in reversed(self._common.split("\n\n")):
            names = re.findall(r"^local (?:function )?([\w, ]+)", part, re.M)
            words = set(re.findall(r"\w+", "\n".join(parts)))
            if {name.strip() for line in names for name in line.split(",")} & words:
                parts.insert(0, part)
        return "\n\n".join(parts)


class Call(NamedTuple):
    """One act: its script, the session it is about, its arguments.

    `settle` converts the script's answer, or the exception instead of it, to the result or an
    exception. It is called once for a started act, even if no caller waits any longer.
    """

    script: Script
    session: bytes
    args: Sequence[Any]
    settle: Callable[[Any], Any]


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
        if base is None or not self.cluster:
            return await self._dial(None)
        await self._look()
        slot = key_slot(base)
        for first, last, address, _ in self._slots:
            if first <= slot <= last:
                return await self._dial(address)
        self._stale = True
        raise ConnectionError("No server of the Cluster holds this partition.")

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
        kwargs = self._kwargs
        if address is not None:
            kwargs = {**kwargs, "host": address[0], "port": address[1]}
        connection: Connection = self._make(**kwargs)
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


class Link:
    """Calls to the partition whose keys begin with `base`.

    `origin` is this process's number, `publish` the command with which scripts notify others.
    `replicas` is how many must confirm a batch before it counts. `repeated(session)` is called for
    repeated calls: the effects of their first run were not delivered in this process. `observe` is
    called for each pipeline. `shift()` is added to Redis's clock, in seconds: for tests. Calls are
    sent in order of arrival, one pipeline at a time.
    """

    def __init__(
        self,
        routes: Routes,
        base: bytes,
        origin: bytes,
        publish: bytes,
        *,
        repeated: Callable[[bytes], None],
        replicas: int = 0,
        observe: Callable[[Batch], None] | None = None,
        shift: Callable[[], float] | None = None,
    ) -> None:
        self._routes = routes
        self._base = base
        self._origin = origin
        self._publish = publish
        self._shift = shift
        self._replicas = replicas
        self._repeated = repeated
        self._batcher: Batcher[Call, Any] = Batcher(self._send, max_size=BATCH, observe=observe)
        self._connection: Connection | None = None
        self._away = False
        self._sent = False

    def submit(self, call: Call) -> asyncio.Future[Any]:
        """A future of the result of `call.settle`, or of StoreUnavailable."""
        return self._batcher.submit(call)

    async def close(self) -> None:
        """Finish the pending calls and disconnect."""
        await self._batcher.aclose()
        if self._connection is not None:
            await self._connection.disconnect()
            self._connection = None

    async def _send(self, calls: list[Call]) -> list[Any]:
        answers, again = await self._insist(calls)
        settled = [_settled(call, answer) for call, answer in zip(calls, answers, strict=True)]
        if again:
            for call in calls:
                self._repeated(call.session)
        return settled

    async def _insist(self, calls: list[Call]) -> tuple[list[Any], bool]:
        """The answer of each call, or the last error, and whether calls were repeated."""
        until = time.monotonic() + (BRIEF if self._away else PATIENCE)
        answers: list[Any] = [None] * len(calls)
        left, again, lost = list(range(len(calls))), False, False
        while True:
            trouble: Exception | None = None
            self._sent = False
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    found = await self._round([calls[i] for i in left], again)
            except (RedisError, OSError) as error:
                trouble, again, lost = error, True, lost or self._sent
            else:
                for i, answer in zip(left, found, strict=True):
                    answers[i] = answer
                left = [i for i in left if isinstance(answers[i], PASSING)]
                if not left:
                    self._away = False
                    return answers, again
                trouble = answers[left[0]]
            self._routes.doubt()
            await self._hang_up()
            if time.monotonic() + PAUSE > until:
                if not self._away:
                    log.warning("Redis does not answer: %s", _words(trouble))
                self._away = True
                for i in left:
                    answers[i] = Unanswered(_words(trouble)) if lost else trouble
                return answers, again
            await asyncio.sleep(PAUSE)

    async def _round(self, calls: list[Call], again: bool) -> list[Any]:
        """Send the calls in one pipeline and read their answers."""
        if self._connection is None:
            self._connection = await self._routes.connect(self._base)
        answers = await self._exchange(self._connection, calls, again)
        unknown = [i for i, a in enumerate(answers) if isinstance(a, NoScriptError)]
        if unknown:  # after a restart or SCRIPT FLUSH: send their source, Redis caches it
            sources = [calls[i] for i in unknown]
            found = await self._exchange(self._connection, sources, again, whole=True)
            for i, answer in zip(unknown, found, strict=True):
                answers[i] = answer
        return answers

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _exchange(
        self, connection: Connection, calls: list[Call], again: bool, *, whole: bool = False
    ) -> list[Any]:
        shift = 0 if self._shift is None else int(self._shift() * 1_000_000)
        header = (self._base, self._origin, shift, self._publish)
        mark = b"1" if again else b"0"
        commands: list[tuple[Any, ...]] = [
            (
                b"EVAL" if whole else b"EVALSHA",
                call.script.source if whole else call.script.sha,
                1,
                *header,
                call.session,
                mark,
                *call.args,
            )
            for call in calls
        ]
        wait = self._replicas > 0 and not all(call.script.reads for call in calls)
        if wait:
            commands.append((b"WAIT", self._replicas, int(PATIENCE * 500)))
        packed = b"".join(map(pack_command, commands))
        self._sent = True
        await connection.send_packed_command(packed, check_health=False)
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await connection.read_response())
            except ResponseError as error:
                answers.append(error)
        if wait and not (isinstance(n := answers.pop(), int) and n >= self._replicas):
            raise ConnectionError(f"fewer than {self._replicas} replicas have what was written")
        return answers


def _settled(call: Call, answer: Any) -> Any:
    """What the caller gets. An error in one call does not affect other calls."""
    try:
        return call.settle(_told(answer))
    except Exception as error:
        return error


def _told(answer: Any) -> Any:
    """What the caller gets: an error of Redis's own means that nothing was done."""
    if not isinstance(answer, Exception):
        return answer
    unavailable = StoreUnavailable(f"The store does not answer: {_words(answer)}")
    unavailable.__cause__ = answer
    unavailable.perhaps_done = isinstance(answer, Unanswered)
    return unavailable


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
