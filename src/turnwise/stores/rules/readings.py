"""Rules: what can be read of a session."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from turnwise.conversation import Status, TurnRecord
from turnwise.conversation.events import TERMINAL, Event
from turnwise.errors import NotFound
from turnwise.stores.entry_events import events_of
from turnwise.stores.header import Header
from turnwise.stores.rows import (
    DESCRIBED,
    ENDED,
    ENDS,
    JUDGED,
    PRIVATE,
    STATUSES,
    accepted,
    blank,
    ended,
    head_of,
    turn_of,
)
from turnwise.stores.rules.outbox import pieces_of
from turnwise.stores.rules.scheduling import TIMERS, timers_in
from turnwise.stores.rules.visible import is_cut, messages_in, seqs_between, turns_between
from turnwise.stores.rules.work import NOTHING, Changes, Part, Rule, alive, found


def record_at(session: str, header: Header, n: int) -> Part:
    """The record of turn `n`. Raises NotFound."""
    (entries,) = yield (("turn", n),)
    if not entries:
        raise NotFound("This turn does not exist.")
    last = entries[-1]
    if last.kind in ENDED:
        record = ended(session, last)
    else:
        position = 0
        if header.head is not None and header.head.n != n and n > header.base_turn:
            (ahead,) = yield (("open", header.head.n, None),)
            position = sum(1 for entry in ahead if (entry.turn or 0) < n)
        record = accepted(session, last, header, position)
    if n > header.base_turn:
        record.superseded = is_cut(header, n)
        record.delivery = (yield from pieces_of(header)).get(n, ())
        if record.merged_into is not None:
            yield from _follow(record, session, header)
        return record
    if not (last.kind in ENDED and head_of(last)[3]):
        raise NotFound("This turn does not exist.")
    return blank(record)


def _follow(record: TurnRecord, session: str, header: Header) -> Part:
    """What answers a merged turn is the reply of the turn that it was merged into."""
    assert record.merged_into is not None
    answering = yield from record_at(session, header, record.merged_into)
    record.replies_json, record.error_json = answering.replies_json, answering.error_json
    record.usage_json, record.answered = answering.usage_json, answering.status


def view(session: str) -> Rule:
    """Answer: the session, or None."""
    header, now = yield ()
    if header is None or not alive(header, now):
        return NOTHING
    kept: Sequence[bytes | None] = (None, None)
    if header.parts:
        kept = yield (("part", DESCRIBED), ("part", PRIVATE))
    seen = header.view(session, *kept)
    if header.timer is not None:
        seen.timers = [
            {"at": timer.at, "key": timer.key, "reason": timer.reason}
            for timer in timers_in((yield (("part", TIMERS),))[0])
        ]
    return Changes(seen)


def turn(session: str, n: int | None, key: str | None = None) -> Rule:
    """Answer: one turn, by its number or its key, or None."""
    header, now, *known = yield (("key", key),) if key is not None else ()
    if header is None or not alive(header, now) or (known and known[0] is None):
        return NOTHING
    number = orjson.loads(known[0])[0] if known else n or 0
    try:
        return Changes((yield from record_at(session, header, number)))
    except NotFound:
        return NOTHING


def state(session: str) -> Rule:
    """Answer: the session's state, encoded."""
    header, now = yield ()
    header = found(header, now)
    kept = (yield (("state", header.states),))[0] if header.states else None
    return Changes(kept or b"{}")


def open_turns(session: str, header: Header) -> Part:
    """The records of the open turns, in order."""
    if header.head is None:
        return []
    (entries,) = yield (("open", header.head.n, None),)
    return [accepted(session, entry, header, i) for i, entry in enumerate(entries)]


def turns(
    session: str,
    status: Status | None,
    before: int | None,
    start: int | None,
    limit: int,
    superseded: bool = False,
) -> Rule:
    """Answer: a page of turns in order, and whether there are more; those that were taken back only
    if `superseded`."""
    header, now = yield ()
    header = found(header, now)
    low, high = max(start or 0, header.base_turn), before or header.turns + 1
    latest = start is None
    records: list[TurnRecord] = []
    if status not in ("queued", "running"):
        kinds = "tfcg" if status is None else ENDS[status]
        spans = [(low, high)] if superseded else turns_between(header, low, high)
        for first, last in spans[:: -1 if latest else 1]:
            left = limit + 1 - len(records)
            if left > 0:
                (entries,) = yield (("ended", first, last, kinds, left, latest),)
                records += [ended(session, entry) for entry in entries]
        sent = yield from pieces_of(header)
        for record in records:
            record.superseded = is_cut(header, record.n)
            record.delivery = sent.get(record.n, ())
    if status in (None, "queued", "running"):
        waiting = yield from open_turns(session, header)
        records += [
            record
            for record in waiting
            if low < record.n < high and status in (None, record.status)
        ]
    records.sort(key=lambda record: record.n)
    has_more = len(records) > limit
    page = records[-limit:] if latest else records[:limit]
    return Changes((page, has_more))


def history(
    session: str, before: int | None, start: int | None, limit: int, superseded: bool = False
) -> Rule:
    """Answer: (messages, whether there are more, open turns, cursor's number and tag, asks); what
    was taken back only if `superseded`."""
    header, now = yield ()
    header = found(header, now)
    low, high = max(start or 0, header.base_seq), min(before or header.seq + 1, header.seq + 1)
    latest = start is None
    spans = [(low, high)] if superseded else seqs_between(header, low, high)
    page = yield from messages_in(spans, limit + 1, latest, fully=True)
    has_more = len(page) > limit
    page = page[-limit:] if latest else page[:limit]
    messages = yield from _judged(header, page)
    if superseded and header.cuts:
        gone = [(first, last) for _, _, first, last in header.cuts]
        messages = [
            message[:-1] + b',"superseded":true}' if any(a <= i <= b for a, b in gone) else message
            for (i, _), message in zip(page, messages, strict=True)
        ]
    waiting = yield from open_turns(session, header)
    number = _before_running(header)
    asks = [id for id, *_ in header.asks]
    return Changes((messages, has_more, waiting, number, (yield from _tag_at(number)), asks))


def _judged(header: Header, page: Sequence[tuple[int, bytes]]) -> Part:
    """The messages of a page, with the feedback that people have given to them."""
    messages = [message for _, message in page]
    if JUDGED not in header.parts or not messages:
        return messages
    numbers = [turn_of(message) for message in messages]
    wanted = sorted(set(numbers))
    kept = yield tuple(("part", f"{JUDGED}{n}") for n in wanted)
    judged = {n: orjson.loads(body) for n, body in zip(wanted, kept, strict=True) if body}
    for i, (n, message) in enumerate(zip(numbers, messages, strict=True)):
        if n in judged and (found := judged[n].get(orjson.loads(message)["id"])):
            messages[i] = message[:-1] + b',"feedback":' + orjson.dumps(found) + b"}"
    return messages


def _before_running(header: Header) -> int:
    """From where one follows without missing a word of the running turn."""
    head = header.head
    if head is not None and head.status == "running" and head.started_event is not None:
        return head.started_event - 1
    return header.events


def _tag_at(number: int) -> Part:
    """The tag of the event with this number, or an empty text if it is gone."""
    if not number:
        return ""
    (entries,) = yield (("log", number, 1),)
    told = [event for entry in entries for event in events_of(entry) if event.id == number]
    return told[0].tag if told else ""


def _end_before(turn: int, floor: int) -> Part:
    """The last events of a turn that ended before the log's floor: its record still holds them."""
    (entries,) = yield (("turn", turn),)
    if not entries or entries[-1].kind not in STATUSES or entries[-1].last > floor:
        return None
    return events_of(entries[-1])


def log(session: str, start: int, limit: int, turn: int | None, tag: str = "") -> Rule:
    """Answer: (events, floor, last, where to resume after a gap), or None: no session.

    With `tag` the event at `start` must be the one that has it.
    """
    header, now, horizon = yield (("horizon",),)
    if header is None or not alive(header, now):
        return NOTHING
    floor = max(header.base_event, horizon)
    if turn is not None and (ended_at := (yield from _end_before(turn, floor))) is not None:
        told = [event for event in ended_at if event.id > start]
        return Changes((told[:limit], ended_at[0].id - 1, header.events, None))
    if tag and floor < start <= header.events and (yield from _tag_at(start)) != tag:
        return Changes(([], floor, header.events, max(floor, _before_running(header))))
    events: list[Event] = []
    low = max(start, floor)
    first, more = low + 1, True
    while more and len(events) < limit:
        (entries,) = yield (("log", first, limit),)
        more = len(entries) == limit
        for entry in entries:
            told = events_of(entry)
            if turn is not None:
                told = [event for event in told if event.turn == turn]
            events += told if told and told[0].id > low else [e for e in told if e.id > low]
            if len(events) >= limit or (turn is not None and told and told[-1].type in TERMINAL):
                more = False
                break
        if entries:
            first = entries[-1].last + 1
    # A sweep may have removed some of them meanwhile.
    (horizon,) = yield (("horizon",),)
    floor = max(floor, horizon)
    kept = [event for event in events if event.id > floor]
    return Changes((kept[:limit], floor, header.events, None))
