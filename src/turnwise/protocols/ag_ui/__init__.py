"""AG-UI 1.0 and CopilotKit, on Turnwise's sessions.

app.include_router(ag_ui.router(runtime), prefix="/ag-ui")
new HttpAgent({ url: "http://localhost:8000/ag-ui", threadId })
"""

from __future__ import annotations

from fastapi import APIRouter

from turnwise.channels.access import Authorize
from turnwise.protocols.ag_ui.agent import Agent
from turnwise.protocols.door import Door, as_detail
from turnwise.runtime import Runtime


def router(runtime: Runtime, *, authorize: Authorize | None = None) -> APIRouter:
    """The routes of an AG-UI agent, and those that CopilotKit's pages ask; include it with a
    prefix. `authorize` as in `turnwise.router`."""
    door = Door(runtime, authorize, as_detail)
    Agent(door)
    return door.routes
