"""A bot that reminds people: uvicorn reminder_bot:app, then write "tea in 5 seconds"."""

import re
from datetime import UTC, datetime, timedelta

from turnwise import Bot, Runtime, Turn
from turnwise.server.app import create_app

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
bot = Bot()


@bot.reply
async def reply(turn: Turn) -> str:
    found = re.fullmatch(r"(.+) in (\d+) (second|minute|hour|day)s?", turn.text.strip())
    if found is None:
        return 'Tell me what and when: "tea in 5 minutes".'
    what, count, unit = found.groups()
    at = datetime.now(UTC) + timedelta(seconds=int(count) * SECONDS[unit])
    # Should this attempt be repeated after a crash, the key makes it the same timer.
    await runtime.wake(turn.session.id, what, at=at, key=f"reminder {turn.n}")
    return f"I will remind you at {at:%H:%M:%S} UTC."


@bot.wake
async def remind(turn: Turn) -> str:
    return f"It is time: {turn.reason}."


runtime = Runtime(bot)
app = create_app(runtime)
