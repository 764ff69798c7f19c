"""The web server of the realtime chat: tokens and the WebSocket. It does not run the bot.

    uvicorn web:app --port 8000

POST /token?name=Ada          {"token", "name", "session_start", "expires_in", "messages"}
POST /refresh_token?token=…   the same with a new token and the history; the old one stops working
WS   /chat?token=…            send a text, get JSON: first the history, then events as they happen
"""

import asyncio
import os
from typing import Any

import orjson
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect

from turnwise import Runtime
from turnwise.conversation import Session, iso
from turnwise.errors import Rejected, StoreUnavailable, TurnwiseError
from turnwise.gateway.hub import Reader

HOUR = 3600.0
STORE = os.environ.get("TURNWISE_STORE", "redis://localhost:6379/0")
# The token is valid as long as its session exists: an hour after the last message or refresh.
runtime = Runtime(store=STORE, worker=False)
app = FastAPI(title="Realtime chat", lifespan=runtime.lifespan)


@app.post("/token")
async def token(name: str = "") -> dict[str, Any]:
    """A new session, and the token that opens it."""
    if not name.strip():
        raise HTTPException(400, "Enter a valid name.")
    try:
        session = await runtime.gateway.create(name=name.strip(), ttl=HOUR)
    except TurnwiseError as error:
        raise HTTPException(error.status, error.message) from error
    return await told(session, runtime.gateway.token(session))


@app.post("/refresh_token")
async def refresh_token(token: str) -> dict[str, Any]:
    """Another hour, a new token, and the conversation so far."""
    try:
        session = await opened(token)
        return await told(session, await runtime.gateway.refresh(session.id))
    except TurnwiseError as error:
        raise HTTPException(error.status, error.message) from error


async def opened(token: str) -> Session:
    """The session that a token opens; it now expires in an hour."""
    grant = runtime.gateway.grant(token)
    await runtime.gateway.session(grant.session, grant.generation)
    return await runtime.gateway.update(grant.session, {"ttl": HOUR})


async def told(session: Session, token: str) -> dict[str, Any]:
    history = await runtime.gateway.history(session.id, limit=200)
    return {
        "token": token,
        "name": session.name,
        "session_start": iso(session.created_at),
        "expires_in": HOUR,
        "messages": [shown(orjson.loads(message)) for message in history.messages_json],
    }


def shown(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": message["id"],
        "role": message["role"],
        "text": message["text"],
        "time": message["created_at"],
    }


@app.websocket("/chat")
async def chat(socket: WebSocket, token: str = "") -> None:
    """The conversation: each text is stored at once and answered in order, by any worker."""
    try:
        session = await opened(token)
    except Rejected:
        await socket.close(1008, "a valid token is needed")
        return
    except StoreUnavailable:
        await socket.close(1013, "try again")
        return
    await socket.accept()
    history = await runtime.gateway.history(session.id, limit=200)
    messages = [shown(orjson.loads(message)) for message in history.messages_json]
    waiting = [shown(orjson.loads(turn.message_json)) for turn in history.open if turn.message_json]
    await socket.send_json({"type": "history", "messages": messages, "waiting": waiting})
    # The cursor is before the running answer's first word: a returning client gets all of it.
    with runtime.gateway.follow(
        session.id, history.cursor, generation=session.generation
    ) as reader:
        listening = asyncio.create_task(listen(socket, session, reader))
        try:
            while not reader.closed:
                for event in await reader.read():
                    await socket.send_text(event.encoded.decode())
        except (WebSocketDisconnect, RuntimeError):
            pass  # the client left; the answer is still completed
        finally:
            listening.cancel()
    if reader.closed != "left":
        await socket.close(1012 if reader.closed == "shutdown" else 1008, reader.closed)


async def listen(socket: WebSocket, session: Session, reader: Reader) -> None:
    """Submit what the client sends until it leaves."""
    try:
        async for text in socket.iter_text():
            try:
                await runtime.gateway.submit(session.id, text, generation=session.generation)
            except TurnwiseError as error:  # the text was not accepted, so the client gets it back
                told = {"type": "error", "code": error.code, "message": error.message}
                await socket.send_json({**told, "text": text})
    finally:
        reader.shut("left")
