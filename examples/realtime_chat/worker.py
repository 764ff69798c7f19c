"""The worker of the realtime chat: it answers what the web servers accept. Start any number of it.

    python worker.py        (or: turnwise work worker:bot --store redis://localhost:6379/0)

If OPENAI_API_KEY or OPENAI_BASE_URL is set, a language model answers, else the small bot below.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

from turnwise import Bot, Runtime, Turn
from turnwise.models import OpenAIChat

STORE = os.environ.get("TURNWISE_STORE", "redis://localhost:6379/0")


async def reply(turn: Turn) -> AsyncIterator[str]:
    """Counts in the session's state and streams word by word."""
    turn.state["count"] = turn.state.get("count", 0) + 1
    for word in f"{turn.session.name}, your message {turn.state['count']} was: {turn.text}".split():
        yield word + " "
        await asyncio.sleep(0.01)


has_model = os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
model = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
bot = Bot(OpenAIChat(model=model) if has_model else reply)


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Runtime(bot, STORE):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
