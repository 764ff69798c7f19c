"""`open_store`: the store that a URL names."""

from __future__ import annotations

from collections.abc import Callable

from turnwise.errors import ConfigurationError
from turnwise.stores.base import Store
from turnwise.stores.sqlite import SQLiteStore


def open_store(url: str, *, observe: Callable[[int], None] | None = None) -> Store:
    """The store for `url`, not connected yet.

    `sqlite:///file.db` is relative to the working directory, `sqlite:////var/lib/file.db`
    absolute. Raises ConfigurationError for anything else.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SQLiteStore(rest[1:], observe=observe)
    raise ConfigurationError(f"{url!r} names no store; try sqlite:///turnwise.db")
