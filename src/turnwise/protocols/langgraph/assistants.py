"""Assistants: the bot, under any name that a client has for its graph."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import orjson
from fastapi import Request, Response

from turnwise.channels.bodies import JSON
from turnwise.protocols.door import Door

GRAPH = "turnwise"
EPOCH = "1970-01-01T00:00:00+00:00"


class Assistants:
    """What a client asks before it makes a thread."""

    def __init__(self, door: Door) -> None:
        self._door = door
        path = "/assistants/{assistant}"
        door.add("GET", "/ok", self.ok)
        door.add("GET", "/info", self.info)
        door.add("POST", "/assistants/search", self.search)
        door.add("POST", "/assistants/count", self.count)
        door.add("GET", path, self.show)
        door.add("GET", path + "/schemas", self.schemas)
        door.add("GET", path + "/graph", self.graph)

    async def ok(self, request: Request) -> Response:
        """The server runs."""
        return JSON(b'{"ok":true}')

    async def info(self, request: Request) -> Response:
        """Which server this is."""
        return JSON(orjson.dumps({"version": version("turnwise"), "flags": {"assistants": True}}))

    async def search(self, request: Request) -> Response:
        """All assistants: one."""
        await self._door.caller(request)
        return JSON(orjson.dumps([_assistant(GRAPH)]))

    async def count(self, request: Request) -> Response:
        """How many."""
        await self._door.caller(request)
        return JSON(b"1")

    async def show(self, request: Request) -> Response:
        """The bot."""
        await self._door.caller(request)
        return JSON(orjson.dumps(_assistant(request.path_params["assistant"])))

    async def schemas(self, request: Request) -> Response:
        """What goes in and out: messages."""
        await self._door.caller(request)
        messages = {"type": "array", "items": {"type": "object"}}
        schema = {"type": "object", "properties": {"messages": messages}}
        body = {
            "graph_id": request.path_params["assistant"], "input_schema": schema,
            "output_schema": schema, "state_schema": schema, "config_schema": {"type": "object"},
        }  # fmt: skip
        return JSON(orjson.dumps(body))

    async def graph(self, request: Request) -> Response:
        """One node."""
        await self._door.caller(request)
        nodes = [{"id": name, "type": "runnable"} for name in ("__start__", "bot", "__end__")]
        edges = [
            {"source": "__start__", "target": "bot"}, {"source": "bot", "target": "__end__"},
        ]  # fmt: skip
        return JSON(orjson.dumps({"nodes": nodes, "edges": edges}))


def _assistant(name: str) -> dict[str, Any]:
    return {
        "assistant_id": name, "graph_id": name, "name": name, "config": {}, "context": {},
        "metadata": {}, "version": 1, "created_at": EPOCH, "updated_at": EPOCH,
        "description": None,
    }  # fmt: skip
