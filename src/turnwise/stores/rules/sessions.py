"""Rules: acts on sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from turnwise.errors import NotFound, OwnerSet
from turnwise.stores.header import Head, Header
from turnwise.stores.notices import Signal
from turnwise.stores.records import Creation
from turnwise.stores.rows import DESCRIBED, JUDGED, PRIVATE, body, turn_of
from turnwise.stores.rules.ending import record_of
from turnwise.stores.rules.files import FILES
from turnwise.stores.rules.files import keep as keep_files
from turnwise.stores.rules.memory import empty_memory
from turnwise.stores.rules.outbox import forget_pieces
from turnwise.stores.rules.scheduling import drop_timers
from turnwise.stores.rules.visible import messages_between
from turnwise.stores.rules.work import (
    NOTHING,
    Changes,
    Op,
    Part,
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
)

PAGE = 100


def create(session: str, wish: Creation, op: Op) -> Rule:
    """Answer: the session."""
    header, now, *kept = yield (("part", DESCRIBED), ("part", PRIVATE))
    if header is not None and alive(header, now):
        if wish.owner is not None and header.owner != wish.owner:
            raise NotFound("This session does not exist.")
        return Changes(header.view(session, *kept))
    work = born(now, wish.ttl, op, header, wish.name, wish.owner)
    fresh = work.header
    fresh.named, fresh.unlisted = int(wish.name is not None), int(wish.unlisted)
    fresh.policy = list(wish.policy) if wish.policy is not None else None
    _part(work, DESCRIBED, wish.metadata)
    _part(work, PRIVATE, wish.private)
    if wish.messages:
        _begin_with(work, wish.messages)
    if header is not None:
        work.notices.append(Signal("gone", session))
    return work.done(fresh.view(session, wish.metadata, wish.private), fresh=True)


def _part(work: Work, name: str, content: bytes) -> None:
    header = work.header
    if content != b"{}" or name in header.parts:
        work.also("parts")[name] = content
        if name not in header.parts:
            header.parts += name


def _begin_with(work: Work, messages: Sequence[bytes]) -> None:
    """The history begins with these messages, a turn for each question. They have no events:
    the log begins behind them."""
    header = work.header
    turns: list[tuple[bytes, list[bytes]]] = []
    for encoded in messages:
        if orjson.loads(encoded)["role"] == "user":
            turns.append((encoded, []))
        else:
            if not turns:
                turns.append((b"", []))
            turns[-1][1].append(encoded)
    for question, replies in turns:
        header.turns += 1
        turn = Head(header.turns, "completed", 0, 0, 0, header.events + 1, work.now, work.now)
        first = header.seq + 1
        header.seq += bool(question) + len(replies)
        text = record_of(work, turn, first, b"", b"", question, *replies)
        work.add("t", 1 + len(replies), text, turn=turn.n, seq=first)
    header.base_event = header.events


def update(session: str, changes: Mapping[str, Any], op: Op) -> Rule:
    """Answer: the session."""
    header, now, *kept = yield (("part", DESCRIBED), ("part", PRIVATE))
    work = Work(found(header, now), op, now)
    header = work.header
    shown: dict[str, Any] = {}
    if "name" in changes:
        header.name = shown["name"] = changes["name"]
        header.named = 1
    for i, (name, part) in enumerate((("metadata", DESCRIBED), ("private", PRIVATE))):
        if name in changes:
            kept[i] = changes[name]
            _part(work, part, changes[name])
    if "metadata" in changes:
        shown["metadata"] = orjson.Fragment(changes["metadata"])
    if "ttl" in changes:
        header.ttl = changes["ttl"]
        longer = now + header.ttl
        header.expires = longer if header.timer is None else max(longer, header.expires)
    if "policy" in changes:
        header.policy = list(changes["policy"]) if changes["policy"] is not None else None
    if shown:
        work.add("n", 1, body([now, op.id], orjson.dumps(shown)), at=now)
    return work.done(header.view(session, *kept))


def own(session: str, owner: str, op: Op) -> Rule:
    """Answer: the session, which has an owner from now on. Raises OwnerSet if it is another's."""
    header, now, *kept = yield (("part", DESCRIBED), ("part", PRIVATE))
    header = found(header, now)
    if header.owner is not None:
        if header.owner != owner:
            raise OwnerSet()
        return Changes(header.view(session, *kept))
    work = Work(header, op, now)
    header.owner, header.used = owner, now
    return work.done(header.view(session, *kept))


def judge(session: str, message: str, feedback: Mapping[str, Any], op: Op) -> Rule:
    """Keep a person's feedback with a message. Raises NotFound."""
    header, now = yield ()
    header = found(header, now)
    if op.since is not None and (yield from done_before(op)):
        return NOTHING
    turn = yield from _turn_with(header, message)
    part = f"{JUDGED}{turn}"
    (kept,) = yield (("part", part),)
    judged = orjson.loads(kept) if kept else {}
    judged[message] = feedback
    work = Work(header, op, now)
    work.also("parts")[part] = orjson.dumps(judged)
    if JUDGED not in header.parts:
        header.parts += JUDGED
    work.add("v", 1, body([turn, now, op.id, message], orjson.dumps(feedback)), at=now)
    return work.done()


def _turn_with(header: Header, message: str) -> Part:
    """The turn of a visible message, looked for from the last one on. Raises NotFound."""
    high = header.seq + 1
    while True:
        page = yield from messages_between(header, header.base_seq, high, PAGE, True)
        for _, encoded in page:
            if message.encode() in encoded and orjson.loads(encoded)["id"] == message:
                return turn_of(encoded)
        if len(page) < PAGE:
            raise NotFound("This message does not exist.")
        high = page[0][0]


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
    header, now, *kept, open_ = yield (("part", DESCRIBED), ("part", PRIVATE), ("open", 0, None))
    header = found(header, now)
    if op.since is not None and (yield from done_before(op)):
        return Changes(header.view(session, *kept))
    work = Work(header, op, now)
    if JUDGED in header.parts:
        (parts,) = yield (("parts",),)
        work.also("parts").update((name, b"") for name, _ in parts if name.startswith(JUDGED))
        header.parts = header.parts.replace(JUDGED, "")
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
    header.states = header.since = header.merging = 0
    header.reserved = 0
    header.cuts, header.answered = [], []
    drop_timers(work)
    if FILES in header.parts:
        keep_files(work, {})
    if header.channel is not None:
        yield from forget_pieces(work)
    asks, header.asks = [id for id, *_ in header.asks], []
    empty_memory(header)
    header.open, header.head, header.ready_at = 0, None, None
    work.let_go()
    work.slide()
    work.add("r", len(cancelled) + len(asks) + 1, body([now, op.id, cancelled, asks]))
    return work.done(header.view(session, *kept), erase=True)


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
