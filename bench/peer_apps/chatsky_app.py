"""Chatsky behind FastAPI, as its documentation shows, with the job. PEER_STORE is its storage."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import job
from chatsky import RESPONSE, TRANSITIONS, BaseResponse, Context, Message, Pipeline, Transition
from chatsky.context_storages import context_storage_factory
from fastapi import FastAPI
from pydantic import BaseModel


class FiveWords(BaseResponse):
    async def call(self, ctx: Context) -> str:
        return "".join([word async for word in job.words(ctx.last_request.text)])


storage = context_storage_factory(os.environ["PEER_STORE"])
always = [Transition(dst="node")]
pipeline = Pipeline(
    {"flow": {"start": {TRANSITIONS: always},
              "node": {RESPONSE: FiveWords(), TRANSITIONS: always}}},
    start_label=("flow", "start"), context_storage=storage,
)  # fmt: skip


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await storage.connect()
    yield


app = FastAPI(lifespan=lifespan)


class Said(BaseModel):
    text: str


@app.post("/chat")
async def chat(user_id: str, message: Said) -> dict[str, str]:
    context = await pipeline._run_pipeline(Message(text=message.text), user_id)
    return {"text": context.last_response.text}


@app.get("/chat")
async def history(user_id: str) -> list[str]:
    if await storage.load_main_info(user_id) is None:
        return []
    found = await Context.connected(storage, ("flow", "start"), user_id)
    texts = []
    for key in sorted(found.requests.keys()):
        texts.append((await found.requests[key]).text)
        if key in found.responses.keys():  # noqa: SIM118 it is not a dict
            texts.append((await found.responses[key]).text)
    return texts
