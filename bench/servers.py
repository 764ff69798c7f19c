"""The contestants, as ASGI applications: Turnwise with trivial bots, bare FastAPI, bare Starlette.

BENCH_STORE is the store's URL.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import redis.asyncio
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from sampler import Sampler
from turnwise import Bot, Runtime, Turn
from turnwise.script import Has, Node, Script, To
from turnwise.server.app import create_app
from turnwise.settings import Settings

FRAME = (
    'id: {id}\nevent: delta\ndata: {{"id":{id},"type":"delta","turn":1,'
    '"at":"2026-01-31T12:00:00.000Z","attempt":1,"text":"word {id} "}}\n\n'
)

# Bare FastAPI: what it costs to take a JSON message and answer it, with nothing kept.

echo = FastAPI()


class Prompt(BaseModel):
    text: str


@echo.post("/echo")
async def answer(prompt: Prompt) -> dict[str, str]:
    return {"text": prompt.text}


# Bare ASGI: what the server itself costs.


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    message = await receive()
    text = json.loads(message["body"])["text"]
    body = json.dumps({"text": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# The naive server: the whole conversation as one JSON value, read, changed and written back.

naive = FastAPI()


class NaivePrompt(BaseModel):
    session: str
    text: str


@naive.post("/chat")
async def naive_chat(prompt: NaivePrompt) -> dict[str, str]:
    global _redis
    if _redis is None:
        _redis = redis.asyncio.Redis.from_url(os.environ["BENCH_STORE"])
    key = f"naive:{prompt.session}"
    messages = json.loads(await _redis.get(key) or "[]")
    for role in ("user", "assistant"):
        messages.append(
            {"id": str(uuid.uuid4()), "role": role, "text": prompt.text, "at": time.time()}
        )
    await _redis.set(key, json.dumps(messages), ex=3600)
    return {"text": prompt.text}


_redis: redis.asyncio.Redis | None = None

# Bare Starlette: a stream of frames as large as Turnwise's, made from nothing.


async def stream(request: Request) -> StreamingResponse:
    count = int(request.query_params["count"])

    async def frames() -> AsyncIterator[bytes]:
        for i in range(count):
            yield FRAME.format(id=i).encode()
            await asyncio.sleep(0)

    return StreamingResponse(frames(), media_type="text/event-stream")


bare = Starlette(routes=[Route("/stream", stream)])

# Turnwise.


def _runtime(bot: Bot) -> Runtime:
    settings = Settings(_env_file=None, concurrency=200, log_level="warning")
    return Runtime(bot, os.environ["BENCH_STORE"], settings=settings)


def turns() -> FastAPI:
    """Answers at once."""
    return create_app(_runtime(Bot(_same)))


def sampled() -> FastAPI:
    """The same, and `/sampler/start` and `/sampler/stop` show where its CPU goes."""
    app, sampler = turns(), Sampler()

    @app.get("/sampler/start")
    async def start() -> None:
        sampler.start()

    @app.get("/sampler/stop")
    async def stop() -> dict[str, float]:
        return sampler.stop()

    return app


async def _same(turn: Turn) -> str:
    return turn.text


trivial = Bot(_same)


async def _slept(turn: Turn) -> str:
    await asyncio.sleep(float(turn.text))
    return turn.text


sleeper = Bot(_slept)
"""Answers after as many seconds as the message says."""


def deltas() -> FastAPI:
    """Streams as many words as the message says, without a pause, or slowly one by one."""

    async def reply(turn: Turn) -> AsyncIterator[str]:
        count, _, slowly = turn.text.partition(" ")
        for i in range(int(count)):
            yield f"word {i} "
            await asyncio.sleep(0.003 if slowly else 0)

    return create_app(_runtime(Bot(reply, coalesce=0.001)))


def mixed() -> FastAPI:
    """Answers at once, but streams two hundred words every fifth time."""

    async def reply(turn: Turn) -> AsyncIterator[str]:
        if turn.n % 5:
            yield turn.text
            return
        for i in range(200):
            yield f"word {i} "
            await asyncio.sleep(0)

    return create_app(_runtime(Bot(reply)))


def _chat(script: Script) -> FastAPI:
    """A script behind an endpoint of one's own, as an application would have it."""
    runtime = _runtime(Bot(script))
    app = FastAPI(lifespan=runtime.lifespan)

    @app.post("/chat")
    async def chat(user_id: str, message: Prompt) -> dict[str, object]:
        reply = await runtime.ask(user_id, message.text)
        return {"user_id": user_id, "response": {"text": reply.text}}

    return app


def toy() -> FastAPI:
    """The toy dialog."""
    return _chat(Script.load(Path(__file__).parent.parent / "examples" / "toy_script.yaml"))


def _ring(size: int) -> FastAPI:
    """A script of nodes that lead from one to the next."""
    nodes = {
        f"n{i}": Node("on", transitions=[To(f"n{(i + 1) % size}", when=Has("hello"))])
        for i in range(size)
    }
    return _chat(Script({"ring": nodes}, start=("ring", "n0")))


def one_node() -> FastAPI:
    return _ring(1)


def thousand_nodes() -> FastAPI:
    return _ring(1000)
