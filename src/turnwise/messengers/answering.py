"""What a text or a button answers: a question of the bot that waits."""

from __future__ import annotations

from collections.abc import Sequence

from turnwise.conversation import Answer
from turnwise.errors import NotFound
from turnwise.gateway.gateway import Gateway

GONE = "…"
"""What somebody says by a button of which nobody knows what it said."""
RECENT, EARLIER = 10, 200
"""Messages among which a text may find what it answers, and a button its question."""


async def answers_in(
    gateway: Gateway,
    session: str,
    text: str,
    *,
    key: str | None,
    pressed: tuple[str, int] | None = None,
) -> Sequence[Answer]:
    """What a typed text answers that is a choice, or its number; or a button that was pressed, by
    its ask and the number of its choice. The same `key` answers the same, however late it comes
    again."""
    try:
        history = await gateway.history(session, limit=RECENT)
    except NotFound:
        return []
    asked = [message.ask for message in reversed(history.messages) if message.ask is not None]
    for ask in asked:
        if ask.id not in history.asks:
            continue
        choice = ask.typed(text)
        if pressed is not None:
            id, number = pressed
            choices = ask.choices or []
            choice = choices[number] if ask.id == id and number < len(choices) else None
        if choice is not None:
            return [Answer(ask.id, choice)]
    if asked and key is not None:
        try:
            known = await gateway.turn_by_key(session, key)
        except NotFound:
            return []
        return known.message.answers if known.message is not None else []
    return []


async def label_of(gateway: Gateway, session: str, pressed: tuple[str, int]) -> str:
    """What a button says whose question waits no more; if that is long gone, a sign that there was
    one."""
    id, number = pressed
    try:
        history = await gateway.history(session, limit=EARLIER)
    except NotFound:
        return GONE
    choices = next(
        (one.ask.choices for one in history.messages if one.ask is not None and one.ask.id == id),
        None,
    )
    return choices[number] if choices is not None and number < len(choices) else GONE
