"""OpenAI's API: Responses, Conversations, Chat Completions and Models, on Turnwise's sessions.

app.include_router(openai.router(runtime), prefix="/openai/v1")
client = OpenAI(base_url="http://localhost:8000/openai/v1", api_key=...)
"""

from __future__ import annotations

from fastapi import APIRouter

from turnwise.channels.access import Authorize
from turnwise.protocols.door import Door
from turnwise.protocols.openai.chat import Chat
from turnwise.protocols.openai.conversations import Conversations
from turnwise.protocols.openai.errors import as_error
from turnwise.protocols.openai.responses import Responses
from turnwise.runtime import Runtime


def router(runtime: Runtime, *, authorize: Authorize | None = None) -> APIRouter:
    """The routes of OpenAI's API, for any application; `authorize` as in `turnwise.router`.

    Include it with a prefix such as `/openai/v1`, which is the client's `base_url`.
    """
    door = Door(runtime, authorize, as_error)
    Responses(door)
    Conversations(door)
    Chat(door)
    return door.routes
