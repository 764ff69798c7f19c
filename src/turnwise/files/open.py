"""Which file store an address names, and which one a store has beside it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from turnwise.files.base import FileStore
from turnwise.files.folder import Folder
from turnwise.files.memory import MemoryFiles
from turnwise.files.objects import Objects


def open_files(named: str, beside: Path | None, *, memory: bool = False) -> FileStore | None:
    """The file store that is `named`: a folder, or the URL of an object store.

    Without a name it is a folder `beside` a SQLite file, or this process's memory; None where
    neither exists. Raises ConfigurationError, MissingExtra.
    """
    if named.startswith("file://"):
        return Folder(Path(urlsplit(named).path))
    if "://" in named:
        return Objects(named)
    if named:
        return Folder(Path(named))
    if beside is not None:
        return Folder(beside.with_name(f"{beside.name}-files"))
    return MemoryFiles() if memory else None
