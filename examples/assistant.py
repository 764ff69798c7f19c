"""An assistant behind your own routes, on OpenAI or Azure, with any number of workers.

    OPENAI_API_KEY=... uvicorn assistant:app --workers 4
    curl -X POST localhost:8000/ai/new_session
    curl -X POST localhost:8000/ai/chat -H 'Content-Type: application/json' \
        -d '{"session_id": "...", "prompt": "Hello!", "ai_model": "openai"}'
"""

import os
from collections.abc import AsyncIterator
from functools import cache
from typing import Literal

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from turnwise import Bot, Runtime, Turn, TurnError
from turnwise.errors import Invalid, NotFound
from turnwise.models import AzureOpenAIChat, OpenAIChat

bot = Bot(history=40)
runtime = Runtime(bot, "sqlite:///assistant.db")
app = FastAPI(lifespan=runtime.lifespan)


@cache
def model(name: str) -> OpenAIChat:
    if name == "azure":
        return AzureOpenAIChat(os.environ.get("AZURE_OPENAI_DEPLOYMENT", "gpt-4o-mini"))
    return OpenAIChat(os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), system="Be brief.")


@bot.reply
async def reply(turn: Turn) -> AsyncIterator[str]:
    async for piece in model(turn.message.metadata["ai_model"]).stream(turn):
        yield piece


class Chat(BaseModel):
    session_id: str
    prompt: str
    ai_model: Literal["openai", "azure"] = "openai"


class Reset(BaseModel):
    session_id: str


@app.post("/ai/new_session")
async def new_session() -> dict[str, str]:
    return {"session_id": (await runtime.gateway.create()).id}


@app.post("/ai/chat")
async def chat(body: Chat) -> dict[str, str]:
    await known(body.session_id)
    try:
        answer = await runtime.ask(
            body.session_id, body.prompt, metadata={"ai_model": body.ai_model}, timeout=120
        )
    except Invalid as error:
        raise HTTPException(400, error.message) from error
    except TurnError as error:
        raise HTTPException(502, error.message) from error
    return {"response": answer.text}


@app.post("/ai/reset")
async def reset(body: Reset) -> dict[str, str]:
    await known(body.session_id)
    await runtime.gateway.reset(body.session_id)
    return {"status": "ok"}


async def known(session_id: str) -> None:
    try:
        await runtime.gateway.session(session_id)
    except NotFound:
        raise HTTPException(400, "This session does not exist.") from None
