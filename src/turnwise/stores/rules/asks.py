"""Rules: asks that wait for an answer, and the messages that close them."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from turnwise.conversation import Answer, Asked
from turnwise.errors import AskClosed
from turnwise.stores.header import Header
from turnwise.stores.rows import ENDED, End
from turnwise.stores.rules.work import Part

ANSWERED = 20
"""Closed asks that can be open again after what closed them was taken back."""

Closed = Sequence[tuple[str, str]]
"""Asks that a message closes: their ids, and why."""


def closed_by(answers: Sequence[Answer], header: Header) -> Part:
    """The asks that a message with these answers closes: those, or all if it answers none.

    Only asks of turns that were committed before it was accepted are open, so a "yes" that was
    typed while the question was still being written answers nothing. Raises AskClosed, and Invalid
    for a value that is not one of the choices.
    """
    if not answers:
        return [(id, "message") for id, *_ in header.asks]
    waiting = {id: (turn, place) for id, turn, place in header.asks}
    for answer in answers:
        if answer.ask not in waiting:
            raise AskClosed()
        turn, place = waiting[answer.ask]
        (entries,) = yield (("turn", turn),)
        ends = [entry for entry in entries if entry.kind in ENDED]
        if ends:
            reply = orjson.loads(End.of(ends[-1]).replies[place])
            Asked.of(reply["ask"]).check(answer.value)
    return [(answer.ask, "answered") for answer in answers]


def close_asks(header: Header, closed: Closed, by: int) -> None:
    """These asks are open no longer, because of turn `by`."""
    gone = {id for id, _ in closed}
    header.answered += [[*ask, by] for ask in header.asks if ask[0] in gone]
    header.answered = header.answered[-ANSWERED:]
    header.asks = [ask for ask in header.asks if ask[0] not in gone]
