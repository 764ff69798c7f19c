"""Rules: a session as a whole, to be moved to another store."""

from __future__ import annotations

import math

from turnwise.stores.header import FORMAT, Header
from turnwise.stores.rows import ENDED, Entry, blanked, head_of
from turnwise.stores.rules.work import NOTHING, STATES, Changes, Op, Part, Rule, Work, alive, index
from turnwise.stores.whole import Whole

PAGE = 500
SLICE = 2000
"""Entries that are put into a store at once."""


def whole(session: str) -> Rule:
    """Answer: all that is kept of a session, or None."""
    header, now, horizon = yield (("horizon",),)
    if header is None or not alive(header, now):
        return NOTHING
    numbers = range(max(1, header.states - STATES + 1), header.states + 1)
    (keys,) = yield (("keys",),)
    states = yield tuple(("state", number) for number in numbers)
    parts = yield tuple(("part", name) for name in header.parts)
    left = yield from _left(header)
    entries = yield from _entries(header)
    if header.memory > header.base_memory:
        entries = sorted([*entries, *(yield from _memory(header))], key=lambda entry: entry.last)
    # What retention had removed is not moved: there the log begins.
    header.base_event = max(header.base_event, horizon)
    return Changes(
        Whole(
            session,
            header.encode(),
            [*left, *entries],
            keys,
            {number: state for number, state in zip(numbers, states, strict=True) if state},
            {name: part for name, part in zip(header.parts, parts, strict=True) if part},
        )
    )


def _left(header: Header) -> Part:
    """What resets leave of turns."""
    left: list[Entry] = []
    for first in range(1, header.base_turn + 1, PAGE):
        numbers = range(first, min(first + PAGE, header.base_turn + 1))
        for entries in (yield tuple(("turn", n) for n in numbers)):
            last = entries[-1] if entries else None
            if last is not None and last.kind in ENDED:
                last = last if last.kind in "TFC" else blanked(last)
                left += [last] if last is not None else []
    return left


def _entries(header: Header) -> Part:
    """All entries since the last reset, of which some may not be removed yet."""
    found: list[Entry] = []
    first, limit = 0, PAGE
    while True:
        (page,) = yield (("log", first, limit),)
        known = {entry for entry in found[-limit:] if entry.last == first}
        found += [entry for entry in page if entry not in known]
        if len(page) < limit:
            return [entry for entry in found if _turn_of(entry) > header.base_turn]
        if page[-1].last == first:  # so many acts without an event
            limit *= 2
        first = page[-1].last


def _memory(header: Header) -> Part:
    found: list[Entry] = []
    after, page = header.base_memory, [None]
    while page:
        (page,) = yield (("memory", after, header.memory + 1, PAGE, False),)
        found += page
        after += len(page)
    return found


def _turn_of(entry: Entry) -> float:
    """The turn that an entry belongs to; entries of no turn are never in the way."""
    if entry.turn is not None:
        return entry.turn
    turn: float = head_of(entry)[0] if entry.kind in "sd" else math.inf
    return turn


def put(moved: Whole, start: int, before: str, op: Op) -> Rule:
    """Put the session's entries from `start` on here, up to SLICE of them, behind those that the
    operation `before` has put. Until the last of them the session counts as expired, so that nobody
    sees or uses a part of it, and a sweep removes it if the import is broken off.

    Answer: whether it was done; False: there is a session with this id, and it is left alone; None:
    the part that was put before is gone.
    """
    header, now = yield ()
    if header is not None and header.op == op.id:
        return Changes(True)
    if header is not None and alive(header, now):
        return Changes(False)
    if start and (header is None or header.op != before):
        return NOTHING
    work = Work(Header.decode(moved.header), op, now)
    whole, end = work.header, start + SLICE
    whole.format, whole.count = FORMAT, (0 if header is None else header.count) + 1 + SLICE
    work.was = None if header is None else index(header)
    work.last_version = None if header is None else header.version
    work.entries = list(moved.entries[start:end])
    if end < len(moved.entries):
        whole.expires, whole.open, whole.head = now, 0, None
        whole.token = whole.lease = whole.origin = whole.ready_at = None
        return work.done(True, fresh=not start)
    return work.done(True, keys=moved.keys, states=moved.states, parts=moved.parts, fresh=not start)
