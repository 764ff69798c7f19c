"""What an ask is in protocols that know tools: a call of a tool that the client answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import orjson

from turnwise.conversation import Answer, Asked
from turnwise.errors import AskClosed
from turnwise.gateway.gateway import Gateway
from turnwise.protocols.past import backwards

FAR = 100
"""Turns among which an ask is looked for."""


def tool_name(ask: Asked) -> str:
    """The name of the tool that stands for an ask."""
    return ask.name or ask.kind


def tool_input(ask: Asked, text: str) -> dict[str, Any]:
    """What that tool is given: its own data, or the question."""
    if ask.kind == "tool":
        return ask.data if isinstance(ask.data, dict) else {"data": ask.data}
    asked: dict[str, Any] = {"text": text}
    if ask.choices is not None:
        asked["choices"] = ask.choices
    if ask.data is not None:
        asked["data"] = ask.data
    return asked


def value_of(ask: Asked, given: Any) -> Any:
    """An answer as the ask wants it, where a protocol has texts only."""
    if not isinstance(given, str):
        return given
    if ask.choices is not None:
        return ask.typed(given) or given
    if ask.kind == "question":
        return given
    try:
        return orjson.loads(given)
    except orjson.JSONDecodeError:
        return given


async def asks_of(gateway: Gateway, session_id: str, ids: Collection[str]) -> dict[str, Asked]:
    """The asks with these ids, among the last turns. Raises AskClosed if one is not there."""
    found: dict[str, Asked] = {}
    if not ids:
        return found
    far = 0
    async for exchange in backwards(gateway, session_id):
        for message in exchange.replies:
            if message.ask is not None and message.ask.id in ids:
                found[message.ask.id] = message.ask
        far += 1
        if len(found) == len(ids) or far == FAR:
            break
    if len(found) < len(ids):
        raise AskClosed()
    return found


async def answers_to(
    gateway: Gateway, session_id: str, given: Iterable[tuple[str, Any]]
) -> list[Answer]:
    """The answers that a client gives, by the ids of the asks. Raises AskClosed, NotFound."""
    wanted = dict(given)
    asks = await asks_of(gateway, session_id, wanted)
    return [Answer(id, value_of(asks[id], value)) for id, value in wanted.items()]
