"""The schema of the SQLite file: sqlite.sql, read and applied."""

from __future__ import annotations

import re
import time
from importlib import resources

import apsw

from turnwise.errors import ConfigurationError


def _load(text: str) -> tuple[list[str], dict[str, str]]:
    """The migrations in order and the statements by name, out of sqlite.sql."""
    migrations: list[str] = []
    statements: dict[str, str] = {}
    for part in re.split(r"^-- (?=migration: |name: )", text, flags=re.M)[1:]:
        head, body = part.split("\n", 1)
        kind, name = head.split(": ")
        if kind == "migration":
            migrations.append(body)
        else:
            lines = (line for line in body.splitlines() if not line.startswith("--"))
            statements[name] = " ".join(" ".join(lines).split()).rstrip("; ")
    return migrations, statements


OURS = {"session", "turn", "fact"}
"""Tables that every schema of ours has."""
MIGRATIONS, STATEMENTS = _load(resources.files(__package__).joinpath("sqlite.sql").read_text())


def prepare(db: apsw.Connection) -> None:
    """Configure a connection and migrate its file to this version; waits for others' locks.

    Raises ConfigurationError if a newer version wrote the file, apsw's errors if it cannot be used.
    """
    db.set_busy_timeout(10_000)
    _check_owner(db)
    until = time.monotonic() + 10
    while True:  # this pragma does not wait for other processes
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except apsw.BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA cache_size = -65536")
    _migrate(db)


def _check_owner(db: apsw.Connection) -> None:
    """Raises ConfigurationError if the file is another application's, before it is touched."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    if tables and not tables >= OURS:
        raise ConfigurationError(f"{db.filename} is the database of another application.")


def _migrate(db: apsw.Connection) -> None:
    """Migrate the schema to this version: all migrations, in order, or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.pragma("user_version")
        if version > len(MIGRATIONS):
            raise ConfigurationError(
                f"{db.filename} was written by a newer Turnwise (schema {version})."
            )
        for migration in MIGRATIONS[version:]:
            db.execute(migration)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
