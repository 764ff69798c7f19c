"""Rules: what is to be sent to the chat on a messenger that a session is.

A session with an address has a *channel*, under which it is found, and the number of the last turn
that was delivered; its part OUTBOX says where to, who is sending, and what has become of each piece
of the last turns. Who sends holds a lease, so one process sends at a time. A piece is noted when
the platform has answered, so it is sent once as far as the platform lets one know.
"""

from __future__ import annotations

from typing import Any

import orjson

from turnwise.errors import ClaimLost
from turnwise.stores.header import Header
from turnwise.stores.records import Delivery
from turnwise.stores.rules.work import NOTHING, Op, Part, Rule, Work, alive, last_ended

OUTBOX = "o"
"""The part of a session that is its outbox."""
REMEMBERED = 20
"""Turns of which it is kept what has become of their pieces."""


def addressed(work: Work, channel: str, to: Any) -> Part:
    """The session is this chat from now on; what ended before it had an address is not sent."""
    header = work.header
    kept: dict[str, Any] = {"to": to, "by": None, "until": 0.0, "turns": {}}
    if header.channel is not None:
        (found,) = yield (("part", OUTBOX),)
        before = orjson.loads(found)
        if header.channel == channel and before["to"] == to:
            return
        # What was not sent in the other chat comes here, for the person is here now; but who is
        # sending there ends its turn, and notes what it has sent.
        kept = {**before, "to": to}
    else:
        header.delivered = max(header.delivered, last_ended(header))
    header.channel = channel
    _keep(work, kept)


def forget_pieces(work: Work) -> Part:
    """A reset leaves nothing of what was sent; what was not sent yet is gone with it."""
    (found,) = yield (("part", OUTBOX),)
    _keep(work, {**orjson.loads(found), "turns": {}})
    work.header.delivered = work.header.turns


def readdress(session: str, channel: str, to: Any, op: Op) -> Rule:
    """The chat has moved: what is to be sent goes there."""
    header, now = yield ()
    if header is None or not alive(header, now) or header.channel != channel:
        return NOTHING
    work = Work(header, op, now)
    yield from addressed(work, channel, to)
    return work.done()


def deliver(session: str, channel: str, by: str, lease: float, op: Op) -> Rule:
    """Become the one that sends. Answer: Delivery, or None if another one sends, or there is no
    such address."""
    header, now, found = yield (("part", OUTBOX),)
    if header is None or not alive(header, now) or header.channel != channel or found is None:
        return NOTHING
    kept = orjson.loads(found)
    if kept["by"] not in (None, by) and kept["until"] > now:
        return NOTHING
    kept["by"], kept["until"] = by, now + lease
    work = Work(header, op, now)
    _keep(work, kept)
    return work.done(_delivery(header, kept))


def delivered(
    session: str, by: str, lease: float, n: int, pieces: list[Any], over: bool, op: Op
) -> Rule:
    """Note what has become of a turn's pieces; `over`: all of it was sent, or never will be.
    Answer: Delivery. Raises ClaimLost if another one sends by now."""
    header, now, found = yield (("part", OUTBOX),)
    if header is None or not alive(header, now) or found is None:
        raise ClaimLost()
    kept = orjson.loads(found)
    if kept["by"] != by:
        raise ClaimLost()
    kept["until"] = now + lease
    turned_down = {p[4]: p for p in kept["turns"].get(str(n), ()) if p[4] and p[2] == "refused"}
    pieces = [turned_down.get(piece[4], piece) for piece in pieces]
    turns = {**kept["turns"], str(n): pieces} if pieces else kept["turns"]
    kept["turns"] = dict(sorted(turns.items(), key=lambda one: int(one[0]))[-REMEMBERED:])
    work = Work(header, op, now)
    if over:
        header.delivered = max(header.delivered, n)
    _keep(work, kept)
    return work.done(_delivery(header, kept))


def turn_down(session: str, channel: str, id: str, why: str, op: Op) -> Rule:
    """The platform says later that a piece, which it has by this id, does not arrive. Answer: its
    turn, the place of its message and its own; None if there is none, or it is known."""
    header, now, found = yield (("part", OUTBOX),)
    if header is None or not alive(header, now) or header.channel != channel or found is None:
        return NOTHING
    kept = orjson.loads(found)
    for n, pieces in kept["turns"].items():
        for at, (message, piece, state, what, its, attempt, _) in enumerate(pieces):
            if its == id and state == "sent":
                pieces[at] = [message, piece, "refused", what, its, attempt, why]
                work = Work(header, op, now)
                _keep(work, kept)
                return work.done((int(n), message, piece))
    return NOTHING


def leave(session: str, by: str, op: Op) -> Rule:
    """Nothing is left to be sent now, or this process stops."""
    header, now, found = yield (("part", OUTBOX),)
    if header is None or not alive(header, now) or found is None:
        return NOTHING
    kept = orjson.loads(found)
    if kept["by"] != by:
        return NOTHING
    kept["by"], kept["until"] = None, 0.0
    work = Work(header, op, now)
    _keep(work, kept)
    return work.done()


def _keep(work: Work, kept: dict[str, Any]) -> None:
    work.also("parts")[OUTBOX] = orjson.dumps(kept)
    if OUTBOX not in work.header.parts:
        work.header.parts += OUTBOX


def _delivery(header: Header, kept: dict[str, Any]) -> Delivery:
    channel, n = header.channel or "", header.delivered
    return Delivery(channel, kept["to"], n, header.turns, dict(kept["turns"]))


def pieces_of(header: Header) -> Part:
    """What has become of the pieces of the last turns, by the turns' numbers, for who reads it."""
    if header.channel is None:
        return {}
    (found,) = yield (("part", OUTBOX),)
    turns = orjson.loads(found)["turns"] if found else {}
    names = ("message", "piece", "state", "why")
    return {
        int(n): tuple(dict(zip(names, (p[0], p[1], p[2], p[6]), strict=True)) for p in pieces)
        for n, pieces in turns.items()
    }
