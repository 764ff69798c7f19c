"""The PostgreSQL store: many machines, one PostgreSQL 14 or later.

Acts and readings are the rules' (stores/rules/), computed here and committed in groups (driver.py).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial
from importlib import resources

import asyncpg

from turnwise.batching import Batch
from turnwise.conversation import Session
from turnwise.errors import ConfigurationError, StoreUnavailable
from turnwise.stores import rules
from turnwise.stores.driver import Lost
from turnwise.stores.notices import Ready
from turnwise.stores.postgres import diagnostics
from turnwise.stores.postgres.arguments import decoded, encoded
from turnwise.stores.postgres.connections import Address
from turnwise.stores.postgres.driver import PostgresDriver
from turnwise.stores.postgres.hints import Hints
from turnwise.stores.records import Busy, Place, is_many
from turnwise.stores.remote import RemoteStore
from turnwise.stores.rules import Changes

log = logging.getLogger("turnwise.store")

SCHEMA = 1
MAKES = {"fact": "schema.sql", "owned": "extension.sql", "failed": "extension2.sql"}
"""What the schema was made of, one after another: a table by which each is recognised, and its
file."""
TRIM = 1000
"""Entries that one act of a sweep removes."""
PROOF = 4096


class PostgresStore(RemoteStore):
    """Sessions in the PostgreSQL at `url`: postgresql://user@host/database.

    In addition to PostgreSQL's own parameters the URL may contain `?schema=` (of all tables;
    default "turnwise") and `?listen=` (the server's own address, where the first one is of a
    pooler). `observe` is called for each group of commits. `shift()` is added to the server's
    clock, in seconds: for tests.
    """

    driver: PostgresDriver

    def __init__(
        self,
        url: str,
        *,
        observe: Callable[[Batch], None] | None = None,
        shift: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self._address = Address(url)
        self.driver = PostgresDriver(self._address, observe=observe, shift=shift)
        self._hints = Hints(self._address, self.driver, self.listeners.tell)
        self._secret = b""

    # Life

    async def open(self) -> None:
        try:
            async with asyncio.timeout(15.0):
                await self._prepare()
                await self.driver.open()
                await self._hints.start()
                found = await diagnostics.look(self.driver)
        except (Lost, TimeoutError) as error:
            raise StoreUnavailable(f"Cannot reach PostgreSQL: {error or 'no answer'}") from error
        self.durability = found.durability
        log.info("%s. %s", found.facts["store"], self.durability)
        for warning in found.warnings:
            log.warning("%s", warning)

    async def _prepare(self) -> None:
        """Make the schema, once among all processes. Raises ConfigurationError."""
        connection = await self._address.connect()
        schema = self._address.schema
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", schema)
                exists = "SELECT to_regclass($1)"
                for table, name in MAKES.items():
                    if await connection.fetchval(exists, f"{schema}.{table}") is None:
                        text = resources.files(__package__).joinpath(name).read_text()
                        await connection.execute(text.replace("{s}", schema))
                fact = self.driver.sql["add_fact"]
                await connection.execute(fact, "schema", b"%d" % SCHEMA)
                await connection.execute(fact, "secret", secrets.token_bytes(32))
            read = self.driver.sql["fact"]
            version = int(await connection.fetchval(read, "schema"))
            self._secret = await connection.fetchval(read, "secret")
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigurationError(
                f"PostgreSQL: {error}. docs/deploy.md lists the rights."
            ) from None
        except asyncpg.ReadOnlySQLTransactionError as error:
            raise StoreUnavailable(f"This PostgreSQL cannot be written to: {error}") from None
        finally:
            connection.terminate()
        if version > SCHEMA:
            raise ConfigurationError(
                f"This PostgreSQL was written by a newer Turnwise (schema {version})."
            )

    async def close(self) -> None:
        await self.finish_tasks()
        await self._hints.stop()
        await self.driver.close()

    def follow(self, session: str) -> None:
        self._hints.followed[session] += 1

    def unfollow(self, session: str) -> None:
        self._hints.followed[session] -= 1
        if self._hints.followed[session] <= 0:
            del self._hints.followed[session]

    def _tell(self, session: str, changes: Changes) -> None:
        super()._tell(session, changes)
        self._hints.add(session, changes.notices, appended=bool(changes.entries))

    def told_nobody(self, session: str) -> None:
        super().told_nobody(session)
        self._hints.add(session, [Ready()], appended=True)

    # Sessions

    async def secret(self) -> bytes:
        return self._secret

    async def adopt(self, secret: bytes) -> None:
        sql = self.driver.sql["set_fact"]
        await self.ask(lambda: self.driver.writer.fetch(sql, "secret", secret))
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
        return [session for session in found if session is not None]

    async def publish(self, name: str, value: bytes | None) -> None:
        sql, more = ("drop_fact", ()) if value is None else ("set_fact", (value,))
        await self.ask(lambda: self.driver.writer.fetch(self.driver.sql[sql], name, *more))

    async def published(self, names: str) -> dict[str, bytes]:
        if is_many(names):
            return dict(await self.ask(lambda: self.driver.fetch("facts", names)))
        value: bytes | None = await self.ask(lambda: self.driver.value("fact", names))
        return {} if value is None else {names: value}

    async def ping(self) -> None:
        sql, proof = self.driver.sql["set_fact"], secrets.token_bytes(PROOF)
        await self.ask(lambda: self.driver.writer.fetch(sql, "ready", proof))

    async def waiting(self) -> int:
        found: int = await self.ask(lambda: self.driver.value("waiting"))
        return found

    async def busy(self, limit: int) -> list[Busy]:
        found: list[Busy] = await self.ask(lambda: self.driver.busy(limit))
        return found

    async def outbox(self, channel: str, limit: int) -> list[str]:
        rows = await self.ask(lambda: self.driver.fetch("outbox", encoded(channel), limit))
        return [decoded(id) for (id,) in rows]

    async def failing(self, limit: int) -> list[str]:
        rows = await self.ask(lambda: self.driver.fetch("failing", limit))
        return [decoded(id) for (id,) in rows]

    async def facts(self) -> dict[str, str]:
        found = await self.ask(lambda: diagnostics.look(self.driver))
        heard = "by notices" if self._hints.arrive else "by polling: no notices arrive"
        return {**found.facts, "other processes": heard, "durability": found.durability}

    async def sweep(self, *, retention: float, limit: int = 200) -> int:
        deleted = await self._expire(lambda: self.ask(lambda: self.driver.expired(limit)))
        while await self.ask(lambda: self.driver.erase(TRIM)):
            pass
        cutoff = self.driver.now() - retention
        start: float | None = 0.0
        while start is not None:
            start = await self.ask(partial(self.driver.trim, cutoff, start, TRIM))
        return deleted
