"""Rules: what the bot is to say at a time, and when the time has come."""

from __future__ import annotations

from typing import Any

import orjson

from turnwise.errors import KeyReused, NotFound, QueueFull
from turnwise.stores.header import Head
from turnwise.stores.records import Submission, Timer
from turnwise.stores.rows import Question, body
from turnwise.stores.rules.work import NOTHING, Changes, Op, Part, Rule, Work, done_before, found

TIMERS = "t"
"""The part of a session that is its timers."""
MOST = 100
"""Timers of a session."""


def schedule(wish: Submission, at: float, op: Op) -> Rule:
    """Keep what is to be said until it is `at`. Answer: the timer, or None if the same key has been
    at work before."""
    header, now, known, kept = yield (("key", wish.key or ""), ("part", TIMERS))
    header = found(header, now)
    if wish.owner is not None and header.owner != wish.owner:
        raise NotFound("This session does not exist.")
    timer = Timer(at, wish.key or op.id, wish.reason, tuple(wish.given), wish.fingerprint)
    if op.since is not None and (yield from done_before(op)):
        return Changes(timer)
    if wish.key is not None and known is not None:
        if orjson.loads(known)[1] != wish.fingerprint:
            raise KeyReused()
        return NOTHING
    timers = timers_in(kept)
    same = next((one for one in timers if one.key == timer.key), None)
    if same is not None:
        if same.fingerprint != wish.fingerprint:
            raise KeyReused()
        return Changes(same)
    if len(timers) >= MOST:
        raise QueueFull(f"A session has at most {MOST} timers.")
    work = Work(header, op, now)
    _keep(work, [*timers, timer])
    work.note("schedule")
    return work.done(timer)


def unschedule(session: str, key: str, op: Op) -> Rule:
    """Answer: whether there was a timer with this key."""
    header, now, kept = yield (("part", TIMERS),)
    header = found(header, now)
    if op.since is not None and (yield from done_before(op)):
        return Changes(True)
    timers = timers_in(kept)
    left = [timer for timer in timers if timer.key != key]
    if len(left) == len(timers):
        return Changes(False)
    work = Work(header, op, now)
    _keep(work, left)
    work.note("unschedule")
    return work.done(True)


def timers(session: str) -> Rule:
    """Answer: the session's timers, in order of their times."""
    header, now, kept = yield (("part", TIMERS),)
    return Changes(timers_in(kept) if found(header, now).timer is not None else [])


def is_timed(key: str) -> Part:
    """Whether a timer has this key."""
    (kept,) = yield (("part", TIMERS),)
    return any(timer.key == key for timer in timers_in(kept))


def ring(work: Work) -> Part:
    """Timers whose time has come become turns, in order of their times, behind those that wait."""
    header, now = work.header, work.now
    (kept,) = yield (("part", TIMERS),)
    every = timers_in(kept)
    for timer in every:
        if timer.at <= now:
            _enter(work, timer)
    _keep(work, [timer for timer in every if timer.at > now])
    if header.token is None and header.ready_at is None:
        work.line_up()


def _enter(work: Work, timer: Timer) -> None:
    header, now = work.header, work.now
    header.turns = n = header.turns + 1
    position, first = header.open, header.events + 1
    header.open += 1
    if position == 0:
        header.head = Head(n, "queued", 0, 0, 1, first, now)
    question = Question(b"", None, timer.reason, timer.given)
    head = [n, position, now, work.op.id, timer.key, 0]
    work.add("q", 1, body(head, *question.parts()), turn=n)
    work.also("keys").append((timer.key, orjson.dumps([n, timer.fingerprint])))


def _keep(work: Work, left: list[Timer]) -> None:
    header = work.header
    left.sort(key=lambda timer: timer.at)
    kept = [[*one[:3], [orjson.Fragment(said) for said in one.given], one[4]] for one in left]
    work.also("parts")[TIMERS] = orjson.dumps(kept)
    if TIMERS not in header.parts:
        header.parts += TIMERS
    header.timer = left[0].at if left else None
    if left:  # the session lives at least until its ttl after the last one
        header.expires = max(header.expires, left[-1].at + header.ttl)


def drop_timers(work: Work) -> None:
    """A reset leaves none."""
    if work.header.timer is not None:
        _keep(work, [])


def timers_in(kept: bytes | None) -> list[Timer]:
    """The timers in that part."""
    rows: list[Any] = orjson.loads(kept) if kept else []
    return [
        Timer(at, key, reason, tuple(orjson.dumps(said) for said in given), mark)
        for at, key, reason, given, mark in rows
    ]
