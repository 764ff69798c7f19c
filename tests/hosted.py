"""A host application that the tests run under servers that people use, and its bot."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI

import turnwise
from turnwise import Bot, Runtime, Turn

bot = Bot()


@bot.reply
async def _reply(turn: Turn) -> AsyncIterator[str]:
    for i in range(int(turn.text) if turn.text.isdecimal() else 0):
        yield f"{i} "
        await asyncio.sleep(0.05)
    yield f"{turn.text} by {os.getpid()}"


runtime = Runtime(bot)
app = FastAPI(lifespan=runtime.lifespan)
turnwise.install(app)
app.include_router(turnwise.router(runtime), prefix="/ai")


@app.post("/chat")
async def chat(user: str, text: str) -> str:
    return (await runtime.ask(f"user {user}", text, timeout=20)).text


@app.get("/who")
async def who() -> int:
    return os.getpid()
