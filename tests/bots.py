"""Bots that the tests serve in processes of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from turnwise import Bot, Turn

echo = Bot()


@echo.reply
async def _echo(turn: Turn) -> str:
    turn.state["count"] = turn.state.get("count", 0) + 1
    return f"{turn.state['count']}: {turn.text}"


counter = Bot()


@counter.reply
async def _count(turn: Turn) -> AsyncIterator[str]:
    """Counts to the number in the message, ten a second."""
    for i in range(1, int(turn.text) + 1):
        yield f"{i} "
        await asyncio.sleep(0.1)


deadly = Bot(max_attempts=2)


@deadly.reply
async def _deadly(turn: Turn) -> str:
    """Kills its process when told to."""
    if turn.text == "die":
        os._exit(1)
    return "alive"
