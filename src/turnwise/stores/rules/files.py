"""Rules: which files a session has. Their bytes are kept elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson

from turnwise.errors import Invalid, TooLarge
from turnwise.stores.records import FileRecord
from turnwise.stores.rules.work import NOTHING, Changes, Op, Part, Rule, Work, found

FILES = "a"
"""The part of a session that is the list of its files."""
MOST = 1000
"""Files of a session; their list is rewritten with each."""


def attach(session: str, file: FileRecord, limit: int, op: Op) -> Rule:
    """Add a file to the session. Raises TooLarge if all would have more than `limit` bytes."""
    header, now, kept = yield (("part", FILES),)
    header = found(header, now)
    files = files_in(kept)
    if file.id in files:  # done before
        return NOTHING
    if len(files) >= MOST:
        raise TooLarge(f"A session has at most {MOST:,} files.")
    if sum(one.size for one in files.values()) + file.size > limit:
        raise TooLarge(f"The files of a session have at most {limit:,} bytes.")
    work = Work(header, op, now)
    keep(work, {**files, file.id: file._replace(at=now)})
    work.slide()
    return work.done()


def files(session: str) -> Rule:
    """Answer: the session's files by their ids, or None: no such session."""
    header, now, kept = yield (("part", FILES),)
    if header is None:
        return NOTHING
    return Changes(files_in(kept) if FILES in found(header, now).parts else {})


def forget_files(session: str, before: float, op: Op) -> Rule:
    """Forget files that no message has named and that are older. Answer: their ids."""
    header, now, kept = yield (("part", FILES),)
    if header is None or FILES not in header.parts:
        return Changes([])
    every = files_in(kept)
    gone = [id for id, file in every.items() if file.turn is None and file.at < before]
    if not gone:
        return Changes([])
    work = Work(header, op, now)
    keep(work, {id: file for id, file in every.items() if id not in gone})
    return work.done(gone)


def name_files(work: Work, ids: Iterable[str], n: int) -> Part:
    """Turn `n` names these files, so they stay. Raises Invalid if there is none of an id."""
    (kept,) = yield (("part", FILES),)
    every = files_in(kept)
    for id in ids:
        if id not in every:
            raise Invalid("An attachment names a file that does not exist.")
        if every[id].turn is None:
            every[id] = every[id]._replace(turn=n)
    keep(work, every)


def move_files(work: Work, turns: Collection[int], n: int) -> Part:
    """What these turns name, turn `n` names from now on."""
    if FILES not in work.header.parts:
        return
    (kept,) = yield (("part", FILES),)
    every = files_in(kept)
    if any(file.turn in turns for file in every.values()):
        keep(work, {i: f._replace(turn=n) if f.turn in turns else f for i, f in every.items()})


def keep(work: Work, every: Mapping[str, FileRecord]) -> None:
    """These are the session's files from now on."""
    header = work.header
    work.also("parts")[FILES] = orjson.dumps([list(file) for file in every.values()])
    if FILES not in header.parts:
        header.parts += FILES


def files_in(kept: bytes | None) -> dict[str, FileRecord]:
    """The files in that part, by their ids."""
    rows: list[Any] = orjson.loads(kept) if kept else []
    return {row[0]: FileRecord(*row) for row in rows}
