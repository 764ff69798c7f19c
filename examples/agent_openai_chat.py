"""An agent without an agent library: OpenAIChat with tools of its own.

    OPENAI_API_KEY=... uvicorn agent_openai_chat:app

The calls are steps, the results are in the session's memory, and send_mail is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI

import turnwise
from turnwise import Bot, Runtime
from turnwise.models import OpenAIChat


async def get_weather(city: str) -> str:
    """The weather in a city."""
    note(f"get_weather:{city}")
    return f"20 degrees in {city}"


def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    note(f"send_mail:{to}")
    return f"sent to {to}: {text}"


def note(line: str) -> None:
    """So that one sees how often a tool has run."""
    if file := os.environ.get("RUNS"):
        with Path(file).open("a") as runs:
            runs.write(f"{line}\n")


model = OpenAIChat(
    os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), tools=[get_weather], approve=[send_mail]
)
runtime = Runtime(Bot(model))
app = FastAPI(lifespan=runtime.lifespan)
app.include_router(turnwise.router(runtime))
