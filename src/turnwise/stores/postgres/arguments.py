"""Arguments: what a group of acts has changed, as the statement that commits it is given it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnwise.stores import rules
from turnwise.stores.rules import STATES, Changes

Rows = list[tuple[Any, ...]]


def encoded(text: str) -> bytes:
    """An id or a key, as it is kept."""
    return text.encode("utf-8", "surrogatepass")


def decoded(id: bytes) -> str:
    return id.decode("utf-8", "surrogatepass")


def arguments(
    acts: Sequence[tuple[bytes, Changes, bytes]], now: float
) -> tuple[list[Any], tuple[Rows, ...]]:
    """The arguments of the statement that commits a group of acts, and what few acts have: keys,
    states, parts, up to where a session is emptied, owners, what the memory forgets, when a turn
    failed, and the channel on which something is to be sent."""
    sessions: Rows = []
    entries: Rows = []
    keys: Rows = []
    states: Rows = []
    parts: Rows = []
    erased: Rows = []
    owned: Rows = []
    unlearned: Rows = []
    failed: Rows = []
    outbox: Rows = []
    of_owner: dict[str, int] = {}
    for id, changes, body in acts:
        header = changes.header
        assert header is not None
        index = rules.index(header)
        # An act without an entry may only set right by what the session is found.
        moved = index != changes.was or not changes.entries
        found = index.ready, index.keeper, index.lease, index.expires
        sessions.append((id, changes.last_version, header.version, body, *found, moved))
        entries += [(id, *entry) for entry in changes.entries]
        keys += [(id, encoded(key), value) for key, value in changes.keys]
        states += [(id, number, state) for number, state in changes.states.items()]
        if changes.erase:
            erased.append((id, header.base_event))
        parts += [(id, name, part) for name, part in changes.parts.items()]
        if index.owned is not None and (changes.fresh or index != changes.was):
            owner, *counts = index.owned
            nth = of_owner[owner] = of_owner.get(owner, -1) + 1
            owned.append((id, encoded(owner), *counts, nth))
        if changes.unlearned is not None:
            unlearned.append((id, *changes.unlearned))
        was = None if changes.fresh or changes.was is None else changes.was.outbox
        if index.outbox != was:
            outbox.append((id, None if index.outbox is None else encoded(index.outbox)))
        at = rules.failed_at(changes.entries)
        if at is not None:
            failed.append((id, at))
    common = [*columns(sessions, 9), *columns(entries, 7), now]
    return common, (keys, states, parts, erased, owned, unlearned, failed, outbox)


def rare_columns(
    keys: Rows,
    states: Rows,
    parts: Rows,
    erased: Rows,
    owned: Rows,
    unlearned: Rows,
    failed: Rows,
    outbox: Rows,
) -> list[Any]:
    return [
        *columns(keys, 3),
        *columns(states, 3),
        STATES,
        *columns(parts, 3),
        *columns(erased, 2),
        *columns(owned, 6),
        *columns(unlearned, 3),
        *columns(failed, 2),
        *columns(outbox, 2),
    ]


def columns(rows: Rows, count: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * count
