"""The schema of the SQLite file, and the statements by name."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib import resources

import apsw

from turnwise.errors import ConfigurationError
from turnwise.stores.sqlite.migration import move, rename

VERSION = 3
LOG_SIZE = 64_000_000
"""Bytes that an emptied write-ahead log may keep on the disk."""
OURS = ({"header", "entry", "fact"}, {"session", "turn", "fact"})
"""Tables that every file of ours has: of this version, and of the versions before it."""


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text()


def _statements(text: str) -> dict[str, str]:
    statements = {}
    for part in re.split(r"^-- name: ", text, flags=re.M)[1:]:
        name, body = part.split("\n", 1)
        lines = (line for line in body.splitlines() if not line.startswith("--"))
        statements[name] = " ".join(" ".join(lines).split()).rstrip("; ")
    return statements


STATEMENTS = _statements(_text("statements.sql"))


def prepare(db: apsw.Connection, shared: Callable[[], bool] = lambda: False) -> None:
    """Configure a connection and bring its file to this version; waits for others' locks.

    `shared` says whether another process has the file open: then an older file is left as it is.
    Raises ConfigurationError in that case and if a newer version wrote the file, apsw's errors if
    the file cannot be used.
    """
    db.set_busy_timeout(10_000)
    _check_owner(db)
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only a file that is new is changed by this
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
    db.execute(f"PRAGMA journal_size_limit = {LOG_SIZE}")
    _upgrade(db, shared)
    _extend(db)


def _check_owner(db: apsw.Connection) -> None:
    """Raises ConfigurationError if the file is another application's, before it is touched."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    if tables and not any(tables >= ours for ours in OURS):
        raise ConfigurationError(f"{db.filename} is the database of another application.")


EXTENSIONS = {"owned": "extension.sql", "failed": "extension2.sql"}
"""What version 3 has been given since: a table by which it is recognised, and its file."""


def _extend(db: apsw.Connection) -> None:
    """Add what version 3 has been given since."""
    known = "SELECT count(*) FROM sqlite_master WHERE name = ?"
    for table, name in EXTENSIONS.items():
        if db.execute(known, (table,)).get:
            continue
        db.execute("BEGIN IMMEDIATE")
        try:
            if not db.execute(known, (table,)).get:  # else another process was faster
                db.execute(_text(name))
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


def _upgrade(db: apsw.Connection, shared: Callable[[], bool]) -> None:
    """Bring the file to this version, or leave it as it is."""
    if db.pragma("user_version") == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.pragma("user_version")
        if version > VERSION:
            raise ConfigurationError(
                f"{db.filename} was written by a newer Turnwise (schema {version})."
            )
        if version and shared():
            raise ConfigurationError(
                f"{db.filename} is of an older Turnwise (schema {version}), and another process "
                "has it open. Stop all processes that use it first: then it is upgraded."
            )
        if version == 1:
            db.execute(_text("schema2.sql").split("-- migration: 2")[1])
        if version:
            rename(db)
        db.execute(_text("schema.sql"))
        if version:
            move(db)
        db.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
