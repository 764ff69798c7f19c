"""Ask now, fetch the reply later, one sentence per request, from any process.

uvicorn background_reply:app --workers 4
curl localhost:8000/ada/t1/hello          "success", at once
curl 'localhost:8000/ada/t1?after=0'      the next sentence, and the number to continue after
curl localhost:8000/ada                   both messages, when the reply is complete
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, HTTPException

from turnwise import Bot, Runtime, Turn
from turnwise.conversation import TurnRecord
from turnwise.errors import NotFound

bot = Bot(coalesce="sentence")
runtime = Runtime(bot, "sqlite:///background_reply.db")
app = FastAPI(lifespan=runtime.lifespan)


@bot.reply
async def reply(turn: Turn) -> AsyncIterator[str]:
    """Stands for a slow model: three sentences, word by word."""
    text = f"You asked about {turn.text}. That takes some thought! Here is the answer."
    for word in text.split(" "):
        yield word + " "
        await asyncio.sleep(0.03)


@app.get("/{session}/{task}/{prompt}")
async def ask(session: str, task: str, prompt: str) -> str:
    """The task's name is the key: the same task requested twice is one turn."""
    await runtime.gateway.submit(session, prompt, key=task, create=True)
    return "success"


@app.get("/{session}/{task}")
async def next_sentence(session: str, task: str, after: int = 0) -> dict[str, Any]:
    """The first sentence after event `after`; waits up to 10 seconds for it."""
    turn = await find(session, task)
    with runtime.gateway.follow(session, max(after, turn.first_event), turn=turn.n) as reader:
        while not (reader.ended or reader.closed):
            events = await reader.read(10)
            for event in events:
                if event.type == "delta":
                    return {"sentence": event.json()["text"], "after": event.id, "done": False}
            if not events:
                break
    return {"sentence": "", "after": after, "done": reader.ended}


@app.get("/{session}")
async def history(session: str) -> list[dict[str, str]]:
    try:
        messages = await runtime.messages(session)
    except NotFound:
        raise HTTPException(404, "This session does not exist.") from None
    return [{"role": message.role, "text": message.text} for message in messages]


async def find(session: str, task: str) -> TurnRecord:
    """The turn of a task, by its key."""
    try:
        return await runtime.turn(session, key=task)
    except NotFound:
        raise HTTPException(404, "This task does not exist.") from None
