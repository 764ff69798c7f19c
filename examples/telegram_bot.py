"""A shopping list on Telegram. It needs no public address: it polls Telegram for messages.

TELEGRAM_TOKEN=123456:abc python telegram_bot.py

TELEGRAM_API is the address of your own Bot API server, if you have one.
"""

import asyncio
import os

from turnwise import Bot, Runtime, Turn
from turnwise.messengers.polling import Polling
from turnwise.messengers.telegram import Telegram

bot = Bot()


@bot.reply
async def shopping(turn: Turn) -> str:
    items: list[str] = turn.state.setdefault("items", [])
    match turn.text.strip().lower():
        case "/start":
            return "Tell me what to buy. Say list to see it all, done when you have been shopping."
        case "list":
            return "\n".join(f"- {item}" for item in items) or "Nothing to buy."
        case "done":
            items.clear()
            return "The list is empty."
        case item:
            items.append(item)
            return f"{item}: noted, {len(items)} to buy."


async def main() -> None:
    telegram = Telegram(os.environ["TELEGRAM_TOKEN"], api=os.environ.get("TELEGRAM_API"))
    async with Runtime(bot, "sqlite:///telegram_bot.db") as runtime, Polling(runtime, telegram):
        await asyncio.Event().wait()  # until the process is stopped


if __name__ == "__main__":
    asyncio.run(main())
