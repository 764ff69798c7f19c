"""Vercel's AI SDK (useChat 5, 6 and 7): its UI message stream, on Turnwise's sessions.

app.include_router(ai_sdk.router(runtime), prefix="/ai-sdk")
useChat({ transport: new DefaultChatTransport({ api: "/ai-sdk/chat" }) })
"""

from __future__ import annotations

from fastapi import APIRouter

from turnwise.channels.access import Authorize
from turnwise.protocols.ai_sdk.chat import Chat, as_text
from turnwise.protocols.door import Door
from turnwise.runtime import Runtime


def router(runtime: Runtime, *, authorize: Authorize | None = None) -> APIRouter:
    """The routes that useChat needs, for any application; `authorize` as in `turnwise.router`."""
    door = Door(runtime, authorize, as_text)
    Chat(door)
    return door.routes
