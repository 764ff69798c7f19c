"""An agent with the tools of an MCP server, which lives as long as the worker.

    pip install 'turnwise[openai]' mcp
    OPENAI_API_KEY=... uvicorn agent_mcp:app

What the server offers becomes tools of OpenAIChat; what is in APPROVE is asked for first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from mcp import Client, StdioServerParameters

import turnwise
from turnwise import Bot, Runtime, TurnError
from turnwise.models import OpenAIChat, Tool

SERVER = StdioServerParameters(
    command=sys.executable,
    args=[str(Path(__file__).with_name("mcp_server.py"))],
    env=dict(os.environ),
)
APPROVE = {"send_mail"}

model = OpenAIChat(os.environ.get("OPENAI_MODEL", "gpt-4o-mini"))
bot = Bot(model)


@bot.lifespan
async def mcp_tools() -> AsyncIterator[None]:
    """Connect to the server before the first turn, and leave it after the last."""
    async with Client(SERVER) as client:
        for tool in (await client.list_tools()).tools:
            call = partial(call_tool, client, tool.name)
            approve = tool.name in APPROVE
            model.add_tool(
                Tool(
                    call,
                    name=tool.name,
                    description=tool.description,
                    parameters=tool.input_schema,
                    approve=approve,
                )
            )
        yield


async def call_tool(client: Client, name: str, **arguments: Any) -> str:
    """The text that a tool returns; the model receives its error as the result."""
    result = await client.call_tool(name, arguments)
    text = "\n".join(part.text for part in result.content if part.type == "text")
    if result.is_error:
        raise TurnError(text or "The tool failed.")
    return text


runtime = Runtime(bot)
app = FastAPI(lifespan=runtime.lifespan)
app.include_router(turnwise.router(runtime))
