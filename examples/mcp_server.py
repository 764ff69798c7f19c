"""A small MCP server with two tools, started by agent_mcp.py over its standard input and output."""

from __future__ import annotations

import os
from pathlib import Path

from mcp.server import MCPServer

server = MCPServer("weather and mail")


@server.tool()
def get_weather(city: str) -> str:
    """The weather in a city."""
    note(f"get_weather:{city}")
    return f"20 degrees in {city}"


@server.tool()
def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    note(f"send_mail:{to}")
    return f"sent to {to}: {text}"


def note(line: str) -> None:
    """So that one sees how often a tool has run."""
    if file := os.environ.get("RUNS"):
        with Path(file).open("a") as runs:
            runs.write(f"{line}\n")


if __name__ == "__main__":
    server.run("stdio")
