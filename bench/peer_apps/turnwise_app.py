"""Turnwise with the job, as `turnwise serve` makes it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from turnwise import Bot, Runtime, Turn
from turnwise.server.app import create_app
from turnwise.settings import Settings

DELAY, RUNS = float(os.environ.get("PEER_DELAY", "0")), os.environ.get("PEER_RUNS")
bot = Bot()


@bot.reply
async def words(turn: Turn) -> AsyncIterator[str]:
    if RUNS:
        with Path(RUNS).open("a") as file:  # noqa: ASYNC230 as short as a print
            file.write(f"{turn.text}\n")
    for _ in range(5):
        if DELAY:
            await asyncio.sleep(DELAY / 5)
        yield "word "


settings = Settings(_env_file=None, lease=6.0, log_level="error")
app = create_app(Runtime(bot, os.environ["PEER_STORE"], settings=settings))
