"""A user's mistakes: each line that ends in `# wrong` must be an error to every type checker."""

from collections.abc import AsyncIterator

from turnwise import Bot, Turn, batched

bot = Bot()


@bot.reply  # wrong
async def numbers(turn: Turn) -> AsyncIterator[int]:
    yield 1


def number(turn: Turn) -> int:
    return 1


Bot(number)  # wrong
Bot(history="ten")  # wrong


@batched(max_size=8, max_wiat=0.05)  # wrong
async def embed(texts: list[str]) -> list[float]:
    return [1.0 for _ in texts]


@batched
async def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


async def main(turn: Turn) -> str:
    await lengths(5)  # wrong
    await turn.say(5)  # wrong
    found: str = await lengths("a")  # wrong
    return found
