"""What people write themselves: FastAPI, a conversation as JSON in Redis, BackgroundTasks."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import job
import redis.asyncio
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

store = redis.asyncio.Redis.from_url(os.environ["PEER_STORE"], max_connections=1000)
app = FastAPI()


class Said(BaseModel):
    text: str


async def answer(session: str, text: str) -> str:
    messages = json.loads(await store.get(session) or "[]")
    reply = "".join([word async for word in job.words(text)])
    messages += [{"role": "user", "text": text}, {"role": "assistant", "text": reply}]
    await store.set(session, json.dumps(messages))
    return reply


@app.post("/chat/{session}")
async def chat(session: str, said: Said) -> dict[str, str]:
    return {"text": await answer(session, said.text)}


@app.post("/chat/{session}/stream")
async def stream(session: str, said: Said) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        messages = json.loads(await store.get(session) or "[]")
        reply = ""
        async for word in job.words(said.text):
            reply += word
            yield f"data: {word}\n\n"
        messages += [{"role": "user", "text": said.text}, {"role": "assistant", "text": reply}]
        await store.set(session, json.dumps(messages))

    return StreamingResponse(pieces(), media_type="text/event-stream")


@app.post("/chat/{session}/later", status_code=202)
async def later(session: str, said: Said, tasks: BackgroundTasks) -> dict[str, str]:
    tasks.add_task(answer, session, said.text)
    return {"status": "accepted"}


@app.get("/chat/{session}")
async def history(session: str) -> list[str]:
    return [one["text"] for one in json.loads(await store.get(session) or "[]")]
