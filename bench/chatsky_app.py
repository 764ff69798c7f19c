"""The other contestant of the script row: the toy dialog on Chatsky 0.10 over FastAPI.

BENCH_STORE names its storage: `memory`, or the URL of an SQLite file.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chatsky import RESPONSE, TRANSITIONS, Message, Pipeline
from chatsky import Transition as Tr
from chatsky import conditions as cnd
from chatsky.context_storages import MemoryContextStorage, context_storage_factory
from fastapi import FastAPI
from pydantic import BaseModel

HI = [Tr(dst="node1", cnd=cnd.ExactMatch("Hi"))]
toy = {
    "greeting_flow": {
        "start_node": {TRANSITIONS: HI},
        "node1": {
            RESPONSE: "Hi, how are you?",
            TRANSITIONS: [Tr(dst="node2", cnd=cnd.ExactMatch("i'm fine, how are you?"))],
        },
        "node2": {
            RESPONSE: "Good. What do you want to talk about?",
            TRANSITIONS: [Tr(dst="node3", cnd=cnd.ExactMatch("Let's talk about music."))],
        },
        "node3": {
            RESPONSE: "Sorry, I can not talk about music now.",
            TRANSITIONS: [Tr(dst="node4", cnd=cnd.ExactMatch("Ok, goodbye."))],
        },
        "node4": {RESPONSE: "bye", TRANSITIONS: HI},
        "fallback_node": {RESPONSE: "Ooops", TRANSITIONS: HI},
    }
}
store = os.environ["BENCH_STORE"]
pipeline = Pipeline(
    toy,
    start_label=("greeting_flow", "start_node"),
    fallback_label=("greeting_flow", "fallback_node"),
    context_storage=(
        MemoryContextStorage()
        if store == "memory"
        else context_storage_factory(store.replace("sqlite:", "sqlite+aiosqlite:"))
    ),
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await pipeline.context_storage.connect()
    yield


app = FastAPI(lifespan=lifespan)


class Said(BaseModel):
    text: str


@app.post("/chat")
async def chat(user_id: str, message: Said) -> dict[str, Any]:
    context = await pipeline._run_pipeline(Message(text=message.text), user_id)
    return {"user_id": user_id, "response": {"text": context.last_response.text}}
