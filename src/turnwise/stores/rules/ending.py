"""Rules: how a turn ends, whoever ends it, and the next open one takes its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from turnwise.conversation import concluded, placed
from turnwise.conversation.events import Draft
from turnwise.stores.claim import BEFORE, UNENDED, WHOLE, Outcome, Told
from turnwise.stores.header import Head
from turnwise.stores.rows import ENDS, MORE, Question, body
from turnwise.stores.rules.work import LINE, Part, Work, move, queued, waiting, write

ASKS = 100
"""Maximum number of open asks of a session: older ones are closed."""
_TELLING: Mapping[Told, int] = {BEFORE: 0, WHOLE: 3, UNENDED: 1}
"""Number of events that are derived from the end of a turn before those of its messages."""


def record_of(
    work: Work,
    turn: Head,
    seq: int | None,
    *parts: bytes,
    told: Told = BEFORE,
    waiting: Sequence[int] = (),
    states: int = 0,
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """The body of the entry that ends a turn."""
    head: list[Any] = [
        turn.n, work.now, work.op.id, turn.keyed, turn.attempt, seq, turn.first_event,
        turn.queued_at, turn.started_at,
    ]  # fmt: skip
    if more:
        parts = (*parts, MORE + orjson.dumps(more))
    if states:
        head += (told, waiting, states)
    elif waiting:
        head += (told, waiting)
    elif told:
        head.append(told)
    return body(head, *parts)


def next_head(work: Work) -> Part:
    """The head has ended: the next open turn takes its place. Returns the turns that wait."""
    header = work.header
    last = header.head
    assert last is not None
    header.open -= 1
    header.head = None
    if not header.open:
        return []
    others = yield from waiting(work, last.n + 1, LINE)
    header.head = queued(others[0])
    return [entry.turn for entry in others]


def kept_of(question: Question) -> dict[str, Any]:
    """What the entry that ends a turn keeps of its acceptance, beside the message."""
    more: dict[str, Any] = {}
    if question.note is not None:
        more["note"] = orjson.Fragment(question.note)
    if question.reason is not None:
        more["reason"] = question.reason
    return more


def _more(outcome: Outcome, question: Question) -> dict[str, Any]:
    """What the entry that ends a turn keeps besides."""
    more = kept_of(question)
    if outcome.steps:
        more["steps"] = outcome.steps
    if outcome.data:
        more["data"] = outcome.data
    if outcome.asks:
        more["asks"] = [place for place, _ in outcome.asks]
    return more


def close(
    work: Work, act: str, question: Question, outcome: Outcome, drafts: Sequence[Draft] = ()
) -> Part:
    """End the head: question and replies enter the history, and the next open turn is the head.

    `drafts` come before the end. Returns the messages, placed.
    """
    header = work.header
    head = header.head
    assert head is not None
    move(head, act)
    said = list(outcome.replies)
    error, replies = outcome.error_json or b"", outcome.replies
    if question.message:
        said.insert(0, concluded(question.message, head.status, error))
    first = header.seq + 1
    header.seq += len(said)
    work.slide()
    if drafts:
        write(work, drafts)
    parts = (error, outcome.usage or b"", question.message, *replies)
    others = yield from next_head(work)
    more: dict[str, Any] = {}
    closed: list[str] = []
    kept = question.note is not None or question.reason is not None
    if kept or outcome.asks or outcome.steps or outcome.data:
        more = _more(outcome, question)
        header.asks += [[id, head.n, place] for place, id in outcome.asks]
        if len(header.asks) > ASKS:
            more["closed"] = closed = [id for id, *_ in header.asks[:-ASKS]]
            header.asks = header.asks[-ASKS:]
    work.add(
        ENDS[head.status],
        1 + len(replies) + len(outcome.asks) + len(closed) + _TELLING[outcome.told],
        record_of(
            work, head, first if said else None, *parts,
            told=outcome.told, waiting=others, states=header.states, more=more,
        ),
        turn=head.n,
        seq=first if said else None,
    )  # fmt: skip
    outcome.said = [placed(message, head.n, first + i) for i, message in enumerate(said)]
    return outcome.said
