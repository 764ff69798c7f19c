"""The server's application, which dies at a point that the file `die-at` beside it names.

asked: a message has come, and nothing is done yet. answering: the turn is kept, and its
acknowledgement is about to leave. streaming: a reader has heard three pieces.

GET /tasks says how many tasks its loop has.
"""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from turnwise.cli.processes import from_environment

DIE = Path("die-at")
served = from_environment()


def _die_if_told(point: str) -> None:
    if DIE.exists() and DIE.read_text() == point:
        DIE.unlink()
        os._exit(1)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The application; posts of turns and streams may be its last."""
    if scope["type"] == "http" and scope["path"] == "/tasks":
        gc.collect()
        answer = JSONResponse(len(asyncio.all_tasks()))
        return await answer(scope, receive, send)
    posts = scope["type"] == "http" and scope["method"] == "POST" and "/turns" in scope["path"]
    pieces = 0

    async def watched(message: Message) -> None:
        nonlocal pieces
        if posts and message["type"] == "http.response.start":
            _die_if_told("answering")
        await send(message)
        pieces += message["type"] in ("http.response.body", "websocket.send")
        if pieces >= 3:
            _die_if_told("streaming")

    if posts:
        _die_if_told("asked")
    await served(scope, receive, watched)
