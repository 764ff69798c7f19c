"""Rules: acts on sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from turnwise.stores.header import Header
from turnwise.stores.notices import Signal
from turnwise.stores.rows import DESCRIBED, body
from turnwise.stores.rules.memory import empty_memory
from turnwise.stores.rules.work import (
    NOTHING,
    Changes,
    Op,
    Rule,
    Work,
    alive,
    born,
    done_before,
    first_generation,
    found,
    index,
    move,
    queued,
    record_of,
)


def create(session: str, name: str | None, metadata: bytes, ttl: float, op: Op) -> Rule:
    """Answer: the session."""
    header, now, described = yield (("part", DESCRIBED),)
    if header is not None and alive(header, now):
        return Changes(header.view(session, described))
    work = born(now, ttl, op, header, name)
    parts = {}
    if metadata != b"{}":
        work.header.parts, parts = DESCRIBED, {DESCRIBED: metadata}
    if header is not None:
        work.notices.append(Signal("gone", session))
    return work.done(work.header.view(session, metadata), parts=parts, fresh=True)


def update(session: str, changes: Mapping[str, Any], op: Op) -> Rule:
    """Answer: the session."""
    header, now, described = yield (("part", DESCRIBED),)
    work, parts = Work(found(header, now), op, now), {}
    header = work.header
    if "name" in changes:
        header.name = changes["name"]
    if "metadata" in changes:
        described = changes["metadata"]
        parts, header.parts = {DESCRIBED: described}, DESCRIBED
    if "ttl" in changes:
        header.ttl = changes["ttl"]
        header.expires = now + header.ttl
    return work.done(header.view(session, described), parts=parts)


def rotate(session: str, op: Op) -> Rule:
    """Answer: the new generation of the session's tokens."""
    header, now = yield ()
    work = Work(found(header, now), op, now)
    header = work.header
    header.generation = max(header.generation + 1, first_generation(now))
    work.notices.append(Signal("token", session, header.generation))
    return work.done(header.generation)


def reset(session: str, op: Op) -> Rule:
    """Answer: the session. The entries up to the new base are removed later, in slices."""
    header, now, described, open_ = yield (("part", DESCRIBED), ("open", 0, None))
    header = found(header, now)
    if op.since is not None and (yield from done_before(op)):
        return Changes(header.view(session, described))
    work = Work(header, op, now)
    base = header.events
    cancelled = [entry.turn for entry in open_]
    for entry in open_:
        head = header.head
        turn = head if head is not None and head.n == entry.turn else queued(entry)
        move(turn, "reset")
        turn.keyed = 1  # it can still be asked for
        work.add("C", 0, record_of(work, turn, None), turn=turn.n)
    if header.token is not None:
        running = header.head.n if header.head is not None else 0
        work.notices.append(Signal("lost", session, running))
    header.base_event, header.base_turn, header.base_seq = base, header.turns, header.seq
    header.states = 0
    asks, header.asks = [id for id, *_ in header.asks], []
    empty_memory(header)
    header.open, header.head, header.ready_at = 0, None, None
    work.let_go()
    work.slide()
    work.add("r", len(cancelled) + len(asks) + 1, body([now, op.id, cancelled, asks]))
    return work.done(header.view(session, described), erase=True)


def delete(session: str, op: Op) -> Rule:
    """Answer: whether the session existed."""
    header, now = yield ()
    if header is None:
        return Changes(op.since is not None)
    return _removal(session, header, alive(header, now))


def expire(session: str, op: Op) -> Rule:
    """Delete a session that has expired. Answer: whether it was deleted; None: no such session."""
    header, now = yield ()
    if header is None:
        return NOTHING
    if header.expires > now:
        return Changes(False)
    if alive(header, now):  # it is busy: it is looked at again later
        work = Work(header, op, now)
        header.expires = now + header.ttl
        return work.done(False)
    return _removal(session, header, True)


def _removal(session: str, header: Header, answer: bool) -> Changes:
    notices = (Signal("gone", session),)
    return Changes(answer, header, index(header), header.version, notices=notices, delete=True)
