"""Mounted: the doors that a server opens, each below its own path."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from turnwise.protocols import ag_ui, ai_sdk, langgraph, openai, pages
from turnwise.runtime import Runtime

DOORS: Mapping[str, tuple[str, Callable[[Runtime], APIRouter]]] = {
    "openai": ("/openai/v1", openai.router),
    "ai-sdk": ("/ai-sdk", ai_sdk.router),
    "ag-ui": ("/ag-ui", ag_ui.router),
    "langgraph": ("/langgraph", langgraph.router),
    "pages": ("/pages", pages.router),
}
"""Each protocol by its name in the settings: where it is, and its routes."""
EXPOSED = ["Location", "Retry-After", "Content-Location", "x-workflow-run-id"]
"""Headers that pages of other origins may read."""
THIS_MACHINE = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


def mount(app: FastAPI, runtime: Runtime) -> None:
    """Open the doors that the settings name."""
    for name in runtime.settings.doors():
        prefix, router = DOORS[name]
        app.include_router(router(runtime), prefix=prefix)


class DoorsCORS:
    """Lets pages of this machine use the doors of a server that anybody on this machine may use: a
    page in development is served at another port."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._prefixes = tuple(f"{prefix}/" for prefix, _ in DOORS.values())
        self._cors = CORSMiddleware(
            app,
            allow_origin_regex=THIS_MACHINE,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_door = scope["type"] == "http" and f"{scope['path']}/".startswith(self._prefixes)
        await (self._cors if is_door else self.app)(scope, receive, send)
