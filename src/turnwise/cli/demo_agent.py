"""The demo's agent: it thinks, calls two harmless tools, and asks before it acts. Offline."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator

from turnwise.conversation import Ask, Message
from turnwise.errors import TurnError
from turnwise.turn import Turn

_WEATHER = re.compile(
    r"\b(?:weather|trip|weekend|go)\b.*?\b(?:in|to)\s+([^\W\d_][\w' -]{0,40})", re.I
)
_NOTES = re.compile(r"\b(?:my|show)\b.*\bnotes?\b", re.I)
_SKIES = ("sun all day", "a few clouds", "light rain in the morning", "wind from the sea")


def concerns(turn: Turn) -> bool:
    """Whether the agent answers this turn."""
    return bool(turn.answers or _WEATHER.search(turn.text) or _NOTES.search(turn.text))


async def answer(turn: Turn) -> AsyncIterator[str | Message]:
    """Plan a trip, keep a note if it is allowed, or read the notes."""
    if turn.answers:
        async for piece in _allowed(turn):
            yield piece
    elif found := _WEATHER.search(turn.text):
        async for said in _plan(turn, found[1].strip().title()):
            yield said
    else:
        notes = [entry.body["note"] for entry in await turn.memory.read()]
        listed = "\n".join(f"- {note}" for note in notes)
        yield f"These are your notes:\n\n{listed}" if notes else "There are no notes yet."


async def _plan(turn: Turn, city: str) -> AsyncIterator[str | Message]:
    async with turn.step("thinking", kind="reasoning") as step:
        thoughts = f"They ask about {city}. I look up the forecast first, then I offer a note."
        for word in thoughts.split(" "):
            await step.say(f"{word} ")
            await asyncio.sleep(0.03)
    try:
        forecast = await _forecast(turn, city)
    except TurnError as error:
        yield f"I cannot say: {error.message} Try *Paris*."
        return
    for word in f"In **{city}** there will be {forecast}.".split(" "):
        yield f"{word} "
        await asyncio.sleep(0.03)
    note = f"{city}: {forecast}"
    yield Ask("Shall I put it into your notes?", choices=["Yes", "No"], data={"note": note})


async def _forecast(turn: Turn, city: str) -> str:
    """The first tool. The forecast is made up; one city has none, to show a tool that fails."""
    async with turn.step("get_weather", {"city": city}) as step:
        await asyncio.sleep(0.8)
        if city == "Atlantis":
            raise TurnError("no station in Atlantis reports.", code="no_station")
        chance = zlib.crc32(city.encode())
        forecast = f"{_SKIES[chance % 4]} and {12 + chance // 7 % 15} °C"
        step.output = {"forecast": forecast}
        return forecast


async def _allowed(turn: Turn) -> AsyncIterator[str]:
    """The answer came: act, or do not."""
    answer = turn.answers[0]
    if answer.value != "Yes":
        yield "Then I leave your notes alone."
        return
    note = await _asked_about(turn, answer.ask)
    async with turn.step("save_note", {"note": note}) as step:
        await turn.memory.add({"note": note})
        await asyncio.sleep(0.4)
        step.output = "saved"
    yield "Done. Ask me for **my notes**, today or after a restart."


async def _asked_about(turn: Turn, id: str) -> str:
    """The note that the ask was about: the ask stands in the history with its data."""
    for message in reversed(turn.messages):
        if message.ask is not None and message.ask.id == id:
            return str(message.ask.data["note"])
    return "a note"
