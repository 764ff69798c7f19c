"""`open_store`: the store that a URL names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from turnwise.batching import Batch
from turnwise.errors import ConfigurationError, MissingExtra
from turnwise.stores.base import Store
from turnwise.stores.memory import MemoryStore
from turnwise.stores.sqlite.store import SQLiteStore
from turnwise.urls import masked

EXAMPLE = "sqlite:///turnwise.db"


def open_store(url: str, *, observe: Callable[[Batch], None] | None = None) -> Store:
    """The store for `url`, not connected yet.

    `sqlite:///file.db` is relative to the working directory, `sqlite:////var/lib/file.db`
    absolute; `redis://host:6379/0` (or rediss://, unix://) is a Redis or a Cluster,
    `postgresql://host/database` a PostgreSQL, `memory:` keeps nothing. Raises ConfigurationError
    for anything else, MissingExtra where a client is not installed.
    """
    scheme, _, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if scheme.startswith("sqlite"):
        return SQLiteStore(_file(url, scheme, rest), observe=observe)
    if scheme in ("redis", "rediss", "unix"):
        try:
            from turnwise.stores.redis.store import RedisStore  # an extra: it may not be installed
        except ImportError as error:
            if (error.name or "").startswith("turnwise"):
                raise
            raise MissingExtra("A Redis store", "redis") from None
        return RedisStore(url, observe=observe)
    if scheme in ("postgresql", "postgres"):
        try:
            from turnwise.stores.postgres import PostgresStore  # an extra, too
        except ImportError as error:
            if (error.name or "").startswith("turnwise"):
                raise
            raise MissingExtra("A PostgreSQL store", "postgres") from None
        return PostgresStore(url, observe=observe)
    if scheme.startswith(("postgresql+", "postgres+")):
        raise ConfigurationError(
            f"{masked(url)!r} names no store: Turnwise has its own driver: write postgresql://"
        )
    if url.strip() == "memory:":
        return MemoryStore()
    guess = f"sqlite:///{url}" if "://" not in url and url.endswith(".db") else EXAMPLE
    raise ConfigurationError(
        f"{masked(url)!r} names no store; try {guess}, redis://localhost:6379/0 or postgresql://localhost/turnwise"
    )


def _meant_absolute(name: str) -> bool:
    """Whether a slash is missing: the folder exists at the root, but not here."""
    folder = Path(name).parent
    return not name.startswith("/") and not folder.exists() and Path("/", folder).exists()


def _file(url: str, scheme: str, rest: str) -> str:
    """The file that a SQLite URL names. Raises ConfigurationError for an unsuitable name."""
    name, why = rest[1:], ""
    if scheme != "sqlite":
        why = f"Turnwise has its own driver: write sqlite:// instead of {scheme}://"
    elif not rest.startswith("/"):
        why = "a relative file has three slashes and an absolute one four"
    elif not name or name.endswith("/"):
        why = "it names no file"
    elif name.startswith((":", "file:")):
        why = "sessions are kept in a file; for tests there is turnwise.testing.talk"
    elif "?" in name or "#" in name:
        why = "a file's URL must have no parameters"
    elif name.startswith("~"):
        why = "a home folder must be written as a full path"
    elif _meant_absolute(name):
        why = f"there is no folder {name.rsplit('/', 1)[0]} here, an absolute path has four slashes"
    if why:
        raise ConfigurationError(
            f"{url!r} names no store: {why}. Try {EXAMPLE} or sqlite:////var/lib/turnwise.db"
        )
    return unquote(name)
