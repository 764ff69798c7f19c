"""Diagnostics of a SQLite file: facts for `turnwise check`, and errors in words."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import apsw

from turnwise.stores.sqlite.schema import STATEMENTS, VERSION


def facts(db: apsw.Connection, path: Path) -> dict[str, str]:
    """Versions, sizes and settings, for people."""

    def size(suffix: str) -> int:
        file = Path(f"{path}{suffix}")
        return file.stat().st_size if file.exists() else 0

    return {
        "store": f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})",
        "file": str(path.resolve()),
        "size": f"{size('') / 1e6:.1f} MB, write-ahead log {size('-wal') / 1e6:.1f} MB",
        "schema": f"{db.pragma('user_version')} of {VERSION}",
        "journal": str(db.pragma("journal_mode")),
        "synchronous": {1: "NORMAL", 2: "FULL"}[db.pragma("synchronous")],
        "sessions": str(db.execute(STATEMENTS["count"]).get),
    }


def quick_check(path: Path) -> str:
    """SQLite's integrity check of the file: "ok", or the first error."""
    try:
        db = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
        with closing(db):
            return str(db.execute("PRAGMA quick_check(1)").get)
    except apsw.Error as error:
        return words(error)


def words(error: Exception) -> str:
    """Explains an error of SQLite or of the system to the operator."""
    if isinstance(error, apsw.NotADBError):
        return "it is not a SQLite file, or its first page is damaged. Restore it from a backup."
    if isinstance(error, apsw.CorruptError):
        return f"the file is damaged ({error}). Restore it from a backup."
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
