"""The SQLite store: one file, several processes."""

from turnwise.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
