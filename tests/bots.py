"""Bots that the tests serve in processes of their own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson

from turnwise import Ask, Bot, Message, Refusal, Turn

echo = Bot()


@echo.reply
async def _echo(turn: Turn) -> str:
    turn.state["count"] = turn.state.get("count", 0) + 1
    return f"{turn.state['count']}: {turn.text}"


counter = Bot()


@counter.reply
async def _count(turn: Turn) -> AsyncIterator[str]:
    """Counts to the number in the message, ten a second. If it is stopped, it leaves a file."""
    try:
        for i in range(1, int(turn.text) + 1):
            yield f"{i} "
            await asyncio.sleep(0.1)
    except (asyncio.CancelledError, GeneratorExit):
        _leave_word()
        raise


def _leave_word() -> None:
    Path(f"stopped-{os.getpid()}").touch()


flood = Bot(max_reply=20_000_000)


@flood.reply
async def _flood(turn: Turn) -> AsyncIterator[str]:
    """Says 8 MB."""
    for _ in range(80):
        yield "x" * 100_000
        await asyncio.sleep(0.005)


faulty = Bot(max_attempts=20, timeout=30)
fragile = Bot(max_attempts=3, timeout=30)


@faulty.reply
@fragile.reply
async def _faulty(turn: Turn) -> AsyncIterator[str | Message]:
    """Counts its turns, does something once a turn, says the text again, and sometimes asks; its
    first attempt does what the message says.

    The message is `text`, `text !point` (it dies there), `text !block` (it holds up the loop past
    its lease) or `text !poison` (every attempt dies).
    """
    text, _, order = turn.text.partition(" !")
    if order == "poison" or (turn.attempt == 1 and order == "after-claim"):
        os._exit(1)
    if turn.attempt == 1 and order == "block":
        time.sleep(1.6 * float(os.environ["TURNWISE_LEASE"]))  # noqa: ASYNC251 that is the fault
    turn.state["count"] = turn.state.get("count", 0) + 1
    yield f"{turn.state['count']}:"
    if not any(entry.turn == turn.n for entry in await turn.memory.read()):
        await turn.memory.add("done")  # a tool's result: no later attempt runs it again
        if order == "after-memory":
            os._exit(1)
    memory = await turn.memory.read()
    yield f" {sum(entry.turn == turn.n for entry in memory)} {len(memory)}"
    for word in range(3):
        await asyncio.sleep(0.01)
        yield f" {word}"
        if turn.attempt == 1 and order == "after-deltas" and word == 1:
            os._exit(1)
    yield f" {text}"
    if turn.attempt == 1 and order == "before-finish":
        await asyncio.sleep(0.05)
        os._exit(1)
    if turn.attempt == 1 and order == "after-finish":
        asyncio.get_running_loop().call_later(0.01, os._exit, 1)
    if turn.n % 3 == 0 or order == "asking":
        yield Ask("Sure?", choices=["yes", "no"])
        if turn.attempt == 1 and order == "asking":
            await asyncio.sleep(0.05)
            os._exit(1)


clients = Bot(max_attempts=20)


@clients.reply
async def _for_clients(turn: Turn) -> AsyncIterator[str | Message]:
    """Does what the message says, as other people's clients need it to be tried."""
    turn.usage = {"input_tokens": 3, "output_tokens": 4}
    if turn.answers:
        value = turn.answers[0].value
        yield f"answered {value if isinstance(value, str) else orjson.dumps(value).decode()}"
        return
    turn.state["n"] = turn.state.get("n", 0) + 1
    word, _, number = turn.text.partition(" ")
    if word == "count":
        for i in range(int(number)):
            yield f"{i} "
            await asyncio.sleep(0.1)
    elif word == "two":
        yield "one "
        yield Message("second")
    elif word == "fail":
        yield "so far "
        raise Refusal("I will not.")
    elif word in ("ask", "plan"):
        yield Ask("Send?", choices=["yes", "no"])
    elif word == "client":
        yield Ask("", kind="tool", name="where", data={"precise": True})
    else:
        if word == "tool":
            async with turn.step("weather", {"city": "Paris"}) as step:
                step.output = {"t": 3}
        if word == "think":
            async with turn.step("thinking", kind="reasoning") as step:
                await step.say("hm ")
                await step.say("so")
        yield f"{turn.state['n']}: {turn.text}"
