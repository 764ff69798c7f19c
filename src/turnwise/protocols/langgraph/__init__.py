"""LangGraph's API (a subset, with the Agent Protocol's), on Turnwise's sessions.

app.include_router(langgraph.router(runtime), prefix="/langgraph")
client = get_client(url="http://localhost:8000/langgraph")
"""

from __future__ import annotations

from fastapi import APIRouter

from turnwise.channels.access import Authorize
from turnwise.protocols.door import Door, as_detail
from turnwise.protocols.langgraph.assistants import Assistants
from turnwise.protocols.langgraph.runs import Runs
from turnwise.protocols.langgraph.threads import Threads
from turnwise.runtime import Runtime


def router(runtime: Runtime, *, authorize: Authorize | None = None) -> APIRouter:
    """The routes of threads and runs, for any application; `authorize` as in `turnwise.router`."""
    door = Door(runtime, authorize, as_detail)
    Assistants(door)
    Runs(door)
    Threads(door)
    return door.routes
