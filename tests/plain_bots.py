"""A bot that any version of Turnwise can serve: it uses only what was there from the start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from turnwise import Bot, Turn

plain = Bot(max_attempts=20, timeout=30)


@plain.reply
async def _plain(turn: Turn) -> AsyncIterator[str]:
    """Counts its turns and says the text again, in pieces; where other bots say what is in their
    memory, it says what its state counts."""
    turn.state["count"] = turn.state.get("count", 0) + 1
    yield f"{turn.state['count']}: 1 {turn.state['count']}"
    for word in range(3):
        await asyncio.sleep(0.02)
        yield f" {word}"
    yield f" {turn.text}"
