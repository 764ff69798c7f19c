"""Connections to PostgreSQL, and what their errors mean.

Whatever is raised while a connection dies means that the answer is unknown: asyncpg raises many
kinds, even AttributeError. Only an error that the server itself reports says that nothing was done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from turnwise.errors import ConfigurationError
from turnwise.stores.driver import Lost
from turnwise.urls import masked

log = logging.getLogger("turnwise.store")

CONNECT = 1.0
"""Seconds to connect."""
ANSWER = 1.2
"""Seconds that a statement may take."""
PLANS = {
    # A statement that is prepared while a table is empty would keep the plan for an empty table.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "idle_in_transaction_session_timeout": "10000",
    "application_name": "turnwise",
}
PASSING = ("08", "53", "57", "58", "25006", "40001", "40P01", "55P03", "XX")
"""The classes and codes of errors that say: not now. The server has done nothing."""


class Address:
    """The server that a URL names. `schema`, `listen` are our own parameters of the URL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.strip())
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.schema = query.pop("schema", "turnwise")
        if not (self.schema.isidentifier() and self.schema.isascii() and len(self.schema) < 64):
            raise ConfigurationError("schema= must be a name of ASCII letters, digits and _.")
        self.listen_url = query.pop("listen", "")
        # Several servers may be named: the one that can be written to is meant.
        query.setdefault("target_session_attrs", "read-write")
        self._url = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(query)))
        self.pooled = False
        """Whether a pooler stands between that keeps no prepared statements."""
        self.doubts = 0
        """How many connections were lost: after each, the server may hold less than before."""

    async def connect(self, *, hints: bool = False) -> asyncpg.Connection[Any]:
        """A connection, for `hints` that need not be durable to the server's own address.

        Raises Lost, ConfigurationError.
        """
        url = self.listen_url if hints and self.listen_url else self._url
        pooled = self.pooled and url == self._url
        more: dict[str, Any] = {"statement_cache_size": 0 if pooled else 100}
        if not pooled:  # a setting would stay behind in a pooler, for others
            relaxed = {"synchronous_commit": "off"} if hints else {}
            more["server_settings"] = {**PLANS, **relaxed}
        try:
            return await asyncpg.connect(url, timeout=CONNECT, **more)
        except asyncpg.PostgresError as error:
            if "unsupported startup parameter" in str(error) and not self.pooled:
                self._use_pooler("it refuses settings")
                return await self.connect(hints=hints)
            if error.sqlstate in ("28000", "28P01", "3D000"):
                raise ConfigurationError(f"PostgreSQL refuses to connect: {error}") from None
            raise Lost(str(error), sent=False) from error
        except (ValueError, asyncpg.InterfaceError) as error:
            raise ConfigurationError(f"{masked(self._url)!r}: {error}") from None
        except Exception as error:
            raise Lost(str(error) or "it does not answer", sent=False) from error

    def _use_pooler(self, why: str) -> None:
        if not self.pooled:
            log.warning("PostgreSQL is behind a pooler (%s): statements are not prepared.", why)
        self.pooled = True

    @property
    def hears(self) -> bool:
        """Whether notices can arrive: they do not pass a pooler."""
        return bool(self.listen_url) or not self.pooled

    def learn(self, error: asyncpg.PostgresError) -> None:
        """An error may show that a pooler stands between."""
        if error.sqlstate in ("26000", "42P05"):
            self._use_pooler("prepared statements are lost")


class Connection:
    """One connection, opened when it is needed and again when it was lost."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: asyncpg.Connection[Any] | None = None
        self._lock = asyncio.Lock()

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a statement. Raises Lost, and asyncpg's errors for a wrong statement."""
        found: list[list[Any]] = await self.together([(statement, values)])
        return found[0]

    async def together(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Any]]:
        """The rows of several statements, in one transaction."""
        async with self._lock:
            if self._connection is not None and self._connection.is_closed():
                await self.close()  # it was lost while nobody used it
            if self._connection is None:
                self._connection = await self._address.connect()
            try:
                async with asyncio.timeout(ANSWER):
                    return await self._fetch(self._connection, statements)
            except asyncpg.PostgresError as error:
                self._address.learn(error)
                state = error.sqlstate or ""
                if state.startswith(("26", "42P05")):
                    await self.close()
                    raise Lost(str(error), sent=False) from error
                if not state.startswith(PASSING):
                    raise
                await self.close()
                # A connection that the server ends may have been ended behind a commit.
                raise Lost(str(error), sent=state.startswith(("08", "57"))) from error
            except asyncio.CancelledError:  # the caller has gone, and nothing is wrong
                self._connection.terminate()
                self._connection = None
                raise
            except BaseException as error:
                await self.close()
                words = str(error) or "it does not answer"
                raise Lost(words, sent=True) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Callable[..., Awaitable[list[Any]]]]:
        """Within the block, all statements see one moment. Raises Lost."""
        connection = await self._address.connect()

        async def fetch(statement: str, *values: Any) -> list[Any]:
            try:
                async with asyncio.timeout(ANSWER):
                    found: list[Any] = await connection.fetch(statement, *values)
                    return found
            except Exception as error:
                raise Lost(str(error) or "it does not answer", sent=False) from error

        try:
            await fetch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield fetch
            await fetch("COMMIT")
        finally:
            connection.terminate()

    async def _fetch(
        self, connection: asyncpg.Connection[Any], statements: Sequence[tuple[str, Sequence[Any]]]
    ) -> list[list[Any]]:
        if len(statements) == 1:
            statement, values = statements[0]
            return [await connection.fetch(statement, *values)]
        async with connection.transaction():
            return [await connection.fetch(statement, *values) for statement, values in statements]

    async def close(self) -> None:
        """Disconnect at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._address.doubts += 1
            connection.terminate()
