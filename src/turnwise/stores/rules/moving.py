"""Rules: a session as a whole, to be moved to another store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import orjson

from turnwise.conversation import file_path
from turnwise.errors import Superseded, TooFarBack
from turnwise.stores.header import PLAIN, Header
from turnwise.stores.records import FileRecord
from turnwise.stores.rows import (
    DESCRIBED,
    ENDED,
    JUDGED,
    PRIVATE,
    Entry,
    blanked,
    head_of,
    messages_of,
)
from turnwise.stores.rules.cuts import asks_at, state_before
from turnwise.stores.rules.files import FILES, files_in
from turnwise.stores.rules.visible import turns_between
from turnwise.stores.rules.work import (
    NOTHING,
    STATES,
    Changes,
    Op,
    Part,
    Rule,
    Work,
    alive,
    first_generation,
    found,
    index,
)
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
    (parts,) = yield (("parts",),)
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
            dict(parts),
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
    every: list[Entry] = []
    first, limit = 0, PAGE
    while True:
        (page,) = yield (("log", first, limit),)
        known = {entry for entry in every[-limit:] if entry.last == first}
        every += [entry for entry in page if entry not in known]
        if len(page) < limit:
            return [entry for entry in every if _turn_of(entry) > header.base_turn]
        if page[-1].last == first:  # so many acts without an event
            limit *= 2
        first = page[-1].last


def _memory(header: Header) -> Part:
    kept: list[Entry] = []
    after, page = header.base_memory, [None]
    while page:
        (page,) = yield (("memory", after, header.memory + 1, PAGE, False),)
        kept += page
        after = page[-1].seq if page else after
    return kept


def _turn_of(entry: Entry) -> float:
    """The turn that an entry belongs to; entries of no turn are never in the way."""
    if entry.turn is not None:
        return entry.turn
    turn: float = head_of(entry)[0] if entry.kind in "sd" else math.inf
    return turn


def fork(session: str, at: int | None, fresh: str, name: str | None) -> Rule:
    """Answer: a new session `fresh`, which is this one up to turn `at`, or up to its last one.

    Turns and messages keep their numbers. Its log begins behind them. Raises Superseded,
    TooFarBack.
    """
    header, now = yield ()
    header = found(header, now)
    turns = yield from _turns(header, at)
    if at is not None and (not turns or turns[-1].turn != at):
        raise Superseded()
    at = turns[-1].turn or 0 if turns else header.base_turn
    states = yield from state_before(header, at + 1)
    numbers = range(max(1, states - STATES + 1), states + 1)
    kept = yield tuple(("state", number) for number in numbers)
    if states and kept[-1] is None:
        raise TooFarBack()
    (parts,) = yield (("parts",),)
    memory = [e for e in (yield from _memory(header)) if head_of(e)[0] <= at]
    events = header.events
    entries = [entry._replace(last=events) for entry in (*turns, *memory)]
    files = files_in(dict(parts).get(FILES))
    if files:  # they are found at the fork's own address
        was, is_ = file_path(session).encode(), file_path(fresh).encode()
        entries = [entry._replace(body=entry.body.replace(was, is_)) for entry in entries]
    _become(header, now, at, turns, memory)
    header.states, header.base_event = states, events
    if name is not None:
        header.name, header.named = name, 1
    return Changes(
        Whole(
            fresh,
            header.encode(),
            entries,
            [],
            {number: state for number, state in zip(numbers, kept, strict=True) if state},
            {part: body for part, body in parts if _is_of(part, at)} | _files_at(files, at),
        )
    )


def _files_at(files: Mapping[str, FileRecord], at: int) -> dict[str, bytes]:
    """The part that is the list of those files that turns up to this one name."""
    kept = [list(file) for file in files.values() if file.turn is not None and file.turn <= at]
    return {FILES: orjson.dumps(kept)} if kept else {}


def _is_of(part: str, at: int) -> bool:
    """Whether a part belongs to a fork at this turn."""
    if part.startswith(JUDGED):
        return int(part.removeprefix(JUDGED)) <= at
    return part in (DESCRIBED, PRIVATE)


def _turns(header: Header, at: int | None) -> Part:
    """The entries that end the visible turns up to `at`."""
    last = header.turns if at is None else at
    turns: list[Entry] = []
    for low, high in turns_between(header, header.base_turn, last + 1):
        more = True
        while more:
            (page,) = yield (("ended", low, high, "tfcg", PAGE, False),)
            turns += page
            more = len(page) == PAGE
            low = page[-1].turn if page else low
    return turns


def _become(
    header: Header, now: float, at: int, turns: Sequence[Entry], memory: Sequence[Entry]
) -> None:
    """The header of a fork at this turn."""
    header.created = header.used = now
    header.expires = now + header.ttl
    header.generation = first_generation(now)
    header.asks, header.answered = asks_at(header, at), [a for a in header.answered if a[3] <= at]
    header.cuts = [cut for cut in header.cuts if cut[1] <= at]
    last = next((entry for entry in reversed(turns) if entry.seq is not None), None)
    header.seq = header.base_seq if last is None else (last.seq or 0) + len(messages_of(last)) - 1
    # What was taken back has positions that nothing new may have.
    header.seq = max([header.seq, *(cut[3] for cut in header.cuts)])
    header.turns = at
    header.remembered = header.forgotten
    if memory:
        first = head_of(memory[-1])[3]
        header.remembered = first + len(memory[-1].parts()[1])
    header.memory = (memory[-1].seq or 0) if memory else header.base_memory
    header.open = header.merging = header.written = 0
    header.head = header.token = header.lease = header.origin = header.keeper = None
    header.ready_at = header.timer = header.channel = None
    header.reserved = 0
    kept = DESCRIBED + PRIVATE + JUDGED + FILES
    header.parts = "".join(name for name in header.parts if name in kept)


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
    whole.format, whole.count = PLAIN, (0 if header is None else header.count) + 1 + SLICE
    work.was = None if header is None else index(header)
    work.last_version = None if header is None else header.version
    work.entries = list(moved.entries[start:end])
    if end < len(moved.entries):
        whole.expires, whole.open, whole.head = now, 0, None
        whole.token = whole.lease = whole.origin = whole.ready_at = whole.timer = None
        return work.done(True, fresh=not start)
    return work.done(True, keys=moved.keys, states=moved.states, parts=moved.parts, fresh=not start)
