"""Turnwise with the job, as `turnwise serve` makes it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import job

from turnwise import Bot, Runtime, Turn
from turnwise.server.app import create_app
from turnwise.settings import Settings

bot = Bot()


@bot.reply
async def words(turn: Turn) -> AsyncIterator[str]:
    async for word in job.words(turn.text):
        yield word


settings = Settings(_env_file=None, lease=6.0, log_level="error")
app = create_app(Runtime(bot, os.environ["PEER_STORE"], settings=settings))
