"""A user's program that type checkers must accept: `assert_type` says what they must see."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from fastapi import FastAPI

import turnwise
from turnwise import Batcher, Bot, Event, Message, Reply, Runtime, Settings, Turn, batched
from turnwise.conversation import Failure, TurnRecord
from turnwise.models import OpenAIChat

bot = Bot(history=10)


@bot.reply
async def stream(turn: Turn) -> AsyncIterator[str | Message]:
    async for piece in OpenAIChat("m").stream(turn):
        assert_type(piece, str)
        yield piece
    yield Message("whole", metadata={"a": 1})


def plain(turn: Turn) -> str:
    return turn.text


def several(turn: Turn) -> Iterator[str]:
    yield turn.text


async def nothing(turn: Turn) -> None:
    turn.state["seen"] = True


bots = [Bot(plain), Bot(several), Bot(nothing), Bot(OpenAIChat("m"))]


@bot.before(timeout=1.0)
async def before(turn: Turn) -> None:
    assert_type(turn.messages, list[Message])


@batched(max_size=8, max_wait=0.05, min_size=8)
async def embed(texts: list[str]) -> list[list[float]]:
    return [[float(len(text))] for text in texts]


@batched
def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


class Model:
    @batched(max_size=4)
    async def classify(self, texts: list[str]) -> list[bool]:
        return [bool(text) for text in texts]


async def main(runtime: Runtime) -> None:
    assert_type(await embed("a"), list[float])
    assert_type(await lengths("a"), int)
    assert_type(await Model().classify("a"), bool)
    direct: Batcher[str, int] = Batcher(lambda texts: [len(text) for text in texts], max_size=2)
    assert_type(await direct("a"), int)

    reply = await runtime.ask("s", "hi", timeout=1.0)
    assert_type(reply, Reply)
    assert_type(reply.messages[0].text, str)
    async for event in runtime.stream("s", "hi"):
        assert_type(event, Event)
        assert_type(event.text, str)
        assert_type(event.message, Message | None)
    async for text in runtime.stream_text("s", "hi"):
        assert_type(text, str)

    turn = await runtime.turn("s", 1)
    assert_type(turn, TurnRecord)
    assert_type(turn.message, Message | None)
    assert_type(turn.reply, Reply | None)
    assert_type(turn.error, Failure | None)
    history = await runtime.gateway.history("s")
    assert_type(history.messages, list[Message])
    with runtime.gateway.follow("s", 0) as reader:
        async for event in reader:
            assert_type(event, Event)


app = FastAPI()
runtime = Runtime(bot, "sqlite:///x.db", settings=Settings(grace=1.0))
app.include_router(turnwise.router(runtime), prefix="/ai")
turnwise.install(app)
