"""Entry events: the events that a session's entries hold, live and in a replay. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from turnwise.conversation import Message, events, placed
from turnwise.conversation.events import (
    Draft,
    Event,
    attempt_draft,
    delta_draft,
    draft,
    message_draft,
    message_ended_draft,
    message_started_draft,
)
from turnwise.errors import Damaged
from turnwise.stores.claim import DELTA_ONLY, UNENDED
from turnwise.stores.rows import End, Entry, question_of


def pack(drafts: Iterable[Draft]) -> bytes:
    """Drafts as one value."""
    return events.pack(Event(0, *drafted) for drafted in drafts)


def events_of(entry: Entry) -> list[Event]:
    """The events that an entry holds, in order. Raises Damaged."""
    try:
        if entry.kind == "d":  # most entries of a stream
            head, _, packed = entry.body.partition(b"\n")
            return events.unpack(packed, entry.last, tag_of(orjson.loads(head)[2]))
        tag, drafts = _drafts(entry)
    except (ValueError, TypeError, LookupError):
        raise Damaged() from None
    first = entry.last - len(drafts) + 1
    return [Event(first + i, type, turn, tail, tag) for i, (type, turn, tail) in enumerate(drafts)]


def tag_of(op: str) -> str:
    """What a cursor says of the act that wrote its event: enough to tell two pasts apart."""
    return op.replace("-", "")[-8:]


def _drafts(entry: Entry) -> tuple[str, Sequence[Draft]]:
    head, *parts = entry.parts()
    match entry.kind, orjson.loads(head):
        case "q", [n, position, at, op, key, started, *closed]:
            more = {"position": position} if key is None else {"position": position, "key": key}
            if parts[0]:
                message = placed(parts[0], n, None)
                drafts = [message_draft(n, at, message, events.QUEUED, **more)]
            else:
                reason = question_of(entry).reason
                drafts = [draft(events.QUEUED, n, at, **more, message=None, reason=reason)]
            for id, why, *_ in closed[0] if closed else ():
                drafts.append(draft(events.ASK_CLOSED, n, at, ask={"id": id}, why=why))
            if started:
                drafts.append(attempt_draft(events.STARTED, n, at, 1))
            return tag_of(op), drafts
        case "s", [n, at, op, attempt]:
            return tag_of(op), [attempt_draft(events.STARTED, n, at, attempt)]
        case "w", [n, _, _, _, _, _, _, at, op]:
            message = placed(parts[0], n, None)
            return tag_of(op), [message_draft(n, at, message, events.CHANGED)]
        case "x", [at, op, seq, first, last, asks]:
            drafts = [draft(events.CUT, None, at, after=seq, turns=[first, last])]
            for id in asks:
                drafts.append(draft(events.ASK_CLOSED, None, at, ask={"id": id}, why="cut"))
            return tag_of(op), drafts
        case "n", [at, op]:
            return tag_of(op), [draft(events.SESSION_CHANGED, None, at, **orjson.loads(parts[0]))]
        case "v", [n, at, op, message]:
            judged = orjson.loads(parts[0])
            return tag_of(op), [draft(events.FEEDBACK, n, at, message=message, **judged)]
        case "t" | "f" | "c" | "g", [_, _, op, *_]:
            return tag_of(op), _told_by(End.of(entry))
        case "r", [at, op, cancelled, *asks]:
            drafts = [draft(events.CANCELLED, n, at, partial=False, waiting=()) for n in cancelled]
            for id in asks[0] if asks else ():
                drafts.append(draft(events.ASK_CLOSED, None, at, ask={"id": id}, why="reset"))
            return tag_of(op), [*drafts, draft(events.RESET, None, at)]
    return "", ()


def _told_by(end: End) -> list[Draft]:
    """The events of a turn's end."""
    n, at, attempt = end.n, end.at, end.attempt
    drafts: list[Draft] = []
    if end.told:
        last = len(end.replies) - 1
        if end.told != UNENDED:
            whole = Message.decode(end.replies[last])
            drafts.append(message_started_draft(n, at, attempt, last, whole))
            drafts.append(delta_draft(n, at, attempt, last, whole.text))
        drafts.append(message_ended_draft(n, at, attempt, last))
        if end.told == DELTA_ONLY:
            drafts = drafts[1:2]
    asks = end.more.get("asks", ())
    for i, reply in enumerate(end.replied()):
        drafts.append(message_draft(n, at, reply))
        if i in asks:
            message = orjson.loads(reply)
            drafts.append(draft(events.ASK, n, at, message=message["id"], ask=message["ask"]))
    for id in end.more.get("closed", ()):
        drafts.append(draft(events.ASK_CLOSED, n, at, ask={"id": id}, why="limit"))
    more: dict[str, Any] = {}
    if end.error:
        more["error"] = orjson.Fragment(end.error)
    if end.usage:
        more["usage"] = orjson.Fragment(end.usage)
    if "into" in end.more:
        more["merged_into"] = end.more["into"]
    partial = bool(end.replies) and end.status != "completed"
    drafts.append(draft(f"turn.{end.status}", n, at, **more, partial=partial, waiting=end.waiting))
    return drafts
