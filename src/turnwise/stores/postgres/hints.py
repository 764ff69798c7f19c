"""Hints: notify other processes of what was committed, and receive their notices.

A hint is sent behind the commits, by one sender for each process and never inside a transaction
that writes: a transaction that notifies holds a lock on the whole database through its fsync. What
arrives is only a hint; who follows a session reads its log. A process that hears nothing (a pooler
lets no notice through, a connection was lost) compares the versions of the sessions that it follows
from time to time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import asyncpg

from turnwise.errors import ConfigurationError
from turnwise.stores.driver import Lost
from turnwise.stores.header import readable
from turnwise.stores.notices import Moved, Notice, Ready, Signal
from turnwise.stores.postgres.connections import Address
from turnwise.stores.postgres.driver import PostgresDriver

log = logging.getLogger("turnwise.store")

GAP = 0.005
"""Seconds between two hints of one process."""
PAUSE = 0.2
"""Seconds between two attempts while the server is away."""
SIZE = 7000
"""Bytes of a hint: PostgreSQL allows 8000."""
MANY = 4
"""Signals in one hint: a session's id may have 200 characters, of up to 12 bytes each."""
PROBE = 1.0
"""Seconds until our own hint must have arrived, or none will."""
LOOK = 2.0
"""Seconds between two comparisons while hints arrive."""
POLL = 0.2
"""The same where no hints arrive."""


class Hints:
    """The hints of one process. `tell` gets the notices of others."""

    def __init__(
        self, address: Address, driver: PostgresDriver, tell: Callable[[Iterable[Notice]], None]
    ) -> None:
        self._address = address
        self._driver = driver
        self._tell = tell
        self._channel = address.schema
        self.followed: Counter[str] = Counter()
        self._known: dict[str, str] = {}
        self._sessions: dict[str, None] = {}
        self._signals: list[tuple[str, str, int]] = []
        self._ready = False
        self._due = asyncio.Event()
        self._heard = asyncio.Event()
        self._listening = asyncio.Lock()
        self.arrive = False
        """Whether hints arrive here; otherwise this process polls."""
        self._connection: asyncpg.Connection[Any] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen, if notices arrive here at all."""
        self._due, self._heard, self._listening = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        await self._listen()
        loop = asyncio.get_running_loop()
        chores = (self._send_forever(), self._compare_forever())
        self._tasks = [loop.create_task(chore) for chore in chores]

    async def stop(self) -> None:
        """Send what is left, and stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.send()
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    # Sending

    def add(self, session: str, notices: Iterable[Notice], *, appended: bool) -> None:
        """Something was committed here."""
        if appended:
            self._sessions[session] = None
        for notice in notices:
            if isinstance(notice, Ready):
                self._ready = True
            elif isinstance(notice, Signal):
                self._signals.append((notice.kind, notice.session, notice.turn))
        if self._sessions or self._ready or self._signals:
            self._due.set()

    async def _send_forever(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            if await self.send():
                await asyncio.sleep(GAP)
            else:
                await self._again()
                self._due.set()
                await asyncio.sleep(PAUSE)

    async def send(self) -> bool:
        """Send what is new; what cannot be sent waits for the next time."""
        connection = self._connection
        while self._sessions or self._ready or self._signals:
            if connection is None or connection.is_closed():
                return False
            sessions, signals, ready = self._sessions, self._signals, self._ready
            self._sessions, self._signals, self._ready = {}, signals[MANY:], False
            try:
                async with asyncio.timeout(PROBE):
                    text = self._text(list(sessions), signals[:MANY], ready)
                    await connection.execute("SELECT pg_notify($1, $2)", self._channel, text)
            except Exception as error:
                log.debug("a hint was not sent: %s", error)
                connection.terminate()
                self._sessions, self._signals = {**sessions, **self._sessions}, signals
                self._ready = ready or self._ready
                return False
        return True

    def _text(self, sessions: list[str], signals: list[Any], ready: bool) -> str:
        """What is new, as one hint; if it is too long, all sessions may have changed."""
        told = {"o": self._driver.origin, "s": sessions, "r": ready, "g": signals}
        text = json.dumps(told)
        return text if len(text) < SIZE else json.dumps({**told, "s": None})

    # Hearing

    async def _listen(self) -> None:
        """Open the connection that listens, and see whether a hint of our own arrives."""
        connection = await self._address.connect(hints=True)
        try:
            try:
                if not self._address.hears:
                    raise TimeoutError
                await connection.add_listener(self._channel, self._hear)
                self._heard.clear()
                probe = json.dumps({"o": self._driver.origin, "p": 1})
                await connection.execute("SELECT pg_notify($1, $2)", self._channel, probe)
                await asyncio.wait_for(self._heard.wait(), PROBE)
            except TimeoutError:
                if self.arrive or not self._tasks:
                    log.warning(
                        "PostgreSQL's notices do not arrive (a pooler?): other processes are heard "
                        "every %g s. Name the server itself by ?listen=postgresql://...", POLL
                    )  # fmt: skip
                self.arrive = False
            else:
                self.arrive = True
        except BaseException as error:
            connection.terminate()
            if isinstance(error, Exception):
                raise Lost(str(error), sent=False) from error
            raise
        self._connection = connection
        # What was told before we listened was not heard.
        self._tell([*(Moved(session) for session in self.followed), Ready()])

    async def _again(self) -> None:
        try:
            async with self._listening:
                if self._connection is None or self._connection.is_closed():
                    await self._listen()
        except (Lost, ConfigurationError) as error:
            log.debug("not listening: %s", error)

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        told = json.loads(payload)
        if told["o"] == self._driver.origin:
            self._heard.set()
            return
        if "p" in told:
            return
        named = self.followed if told["s"] is None else told["s"]
        notices: list[Notice] = [Moved(name) for name in named if name in self.followed]
        notices += [Signal(kind, session, turn) for kind, session, turn in told["g"]]
        if told["r"]:
            notices.append(Ready())
        self._tell(notices)

    # Comparing

    async def _compare_forever(self) -> None:
        """See what no hint has told."""
        while True:
            await asyncio.sleep(LOOK if self.arrive else POLL)
            if self._connection is None or self._connection.is_closed():
                await self._again()
            try:
                await self._compare()
                await self._driver.set_clock()
            except Lost:
                pass
            except Exception:
                log.exception("cannot compare the versions of sessions")

    async def _compare(self) -> None:
        followed = list(self.followed)
        if not followed:
            self._known.clear()
            return
        found = await self._driver.versions(followed)
        notices: list[Notice] = []
        for session in followed:
            if session not in found:
                if session in self._known:
                    notices.append(Signal("gone", session))
            elif found[session][0] != self._known.get(session):
                header = readable(found[session][1])
                if header is not None:
                    notices.append(Signal("token", session, header.generation))
                notices.append(Moved(session))
        self._known = {session: version for session, (version, _) in found.items()}
        self._tell(notices)
