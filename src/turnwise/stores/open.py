"""`open_store`: the store that a URL names."""

from __future__ import annotations

from collections.abc import Callable

from turnwise.batching import Batch
from turnwise.errors import ConfigurationError, MissingExtra
from turnwise.stores.base import Store
from turnwise.stores.sqlite import SQLiteStore


def open_store(url: str, *, observe: Callable[[Batch], None] | None = None) -> Store:
    """The store for `url`, not connected yet.

    `sqlite:///file.db` is relative to the working directory, `sqlite:////var/lib/file.db`
    absolute; `redis://host:6379/0` (or rediss://, unix://) is a Redis or a Cluster. Raises
    ConfigurationError for anything else, MissingExtra where the Redis client is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SQLiteStore(rest[1:], observe=observe)
    if scheme in ("redis", "rediss", "unix"):
        try:
            from turnwise.stores.redis import RedisStore  # an extra: not everybody has it
        except ImportError as error:
            if (error.name or "").startswith("turnwise"):
                raise
            raise MissingExtra("A Redis store", "redis") from None
        return RedisStore(url, observe=observe)
    raise ConfigurationError(
        f"{url!r} names no store; try sqlite:///turnwise.db or redis://localhost:6379/0"
    )
