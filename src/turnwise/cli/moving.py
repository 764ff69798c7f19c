"""Moving: sessions as lines of JSON, whole, from one store to another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO

import orjson
from rich.progress import Progress

from turnwise.cli.flags import err
from turnwise.errors import Damaged, Invalid, NotFound, TurnwiseError
from turnwise.stores.base import Store
from turnwise.stores.whole import Whole
from turnwise.tokens import SIGNING, active, encoded_secrets


async def wholes(store: Store, ids: Sequence[str]) -> AsyncIterator[Whole]:
    """These sessions; raises TurnwiseError at the end if some of them are damaged."""
    with Progress(console=err, transient=True, disable=len(ids) < 20) as progress:
        left_out = 0
        for id in progress.track(ids, description="Exporting"):
            try:
                whole = await store.whole(id)
            except Damaged:
                left_out += leave_out(id)
                continue
            if whole is not None:
                yield whole
    check_all(left_out)


def leave_out(session: str) -> int:
    """Say that a session cannot be read: the others can."""
    err.print(f"{session!r} is damaged and left out.", markup=False, highlight=False)
    return 1


def check_all(left_out: int) -> None:
    """Raises TurnwiseError if sessions were left out."""
    if left_out:
        raise TurnwiseError(f"{left_out} damaged sessions were left out.")


async def write_whole(
    file: BinaryIO, session: str | None, secrets: Sequence[bytes], wholes: AsyncIterator[Whole]
) -> None:
    """A line for each session (or only for `session`), after one with the active secrets if it is
    for all.

    Raises NotFound.
    """
    written = 0
    if session is None:
        first, *others = (secret.hex() for secret in secrets)
        file.write(orjson.dumps({"secret": first, "before": others}) + b"\n")
    async for whole in wholes:
        if session in (None, whole.session):
            file.write(orjson.dumps(whole.as_json()) + b"\n")
            written += 1
    if session is not None and not written:
        raise NotFound(f"The session {session!r} does not exist.")


async def import_lines(store: Store, lines: BinaryIO) -> tuple[int, int]:
    """How many sessions were put into the store, and how many were there already."""
    empty = not await store.sessions(limit=1)
    imported = there = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
            if "secret" in found:
                first, *others = map(bytes.fromhex, (found["secret"], *found.get("before", ())))
                known = active(await store.secret(), await store.published(SIGNING))
                if empty:
                    await store.adopt(first)
                    named = encoded_secrets([first, *others]) if others else None
                    await store.publish(SIGNING, named)
                elif not {first, *others} <= set(known):
                    err.print("The store is in use: tokens of the imported sessions are not valid.")
                continue
            whole = Whole.from_json(found)
        except (ValueError, TypeError, Invalid):
            raise TurnwiseError(
                f"Line {number} was not written by 'turnwise sessions export --whole'; "
                f"{imported} sessions before it were imported."
            ) from None
        done = await store.put(whole)
        imported, there = imported + done, there + (not done)
    return imported, there
