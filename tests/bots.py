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


mortal = Bot(max_attempts=50)


@mortal.reply
async def _mortal(turn: Turn) -> AsyncIterator[str]:
    """Answers in pieces; its first attempt kills its process at the point the message names."""
    point = turn.text.partition(" ")[2] if turn.attempt == 1 else ""
    if point == "after-claim":
        os._exit(1)
    for i in range(4):
        yield f"{i} "
        await asyncio.sleep(0.02)
        if point == "after-deltas" and i == 2:
            os._exit(1)
    yield turn.text
    if point == "before-finish":
        await asyncio.sleep(0.05)
        os._exit(1)
    if point == "after-finish":
        asyncio.get_running_loop().call_later(0.01, os._exit, 1)
