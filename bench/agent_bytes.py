"""What agents write to remember: 30 turns of about 300 characters with one tool call each.

    python bench/agent_bytes.py [sqlite redis postgres]

For each program of examples/: the bytes of its entries in `turn.memory`, and what it would write
if it kept the same in the session's state, which is written whole each turn.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
sys.path[:0] = [str(HERE / "tests"), str(HERE / "examples")]

from conftest import free_port  # noqa: E402 the tests' folder comes first
from postgres_servers import PostgresServer  # noqa: E402
from redis_servers import RedisServer  # noqa: E402
from tool_model import ToolModel  # noqa: E402

PROGRAMS = {
    "agent_pydantic_ai": "Pydantic AI",
    "agent_openai_agents": "OpenAI Agents SDK",
    "agent_langgraph": "LangGraph",
    "agent_openai_chat": "OpenAIChat",
}
TURNS = 30
TEXT = "What is the weather in Paris? " + "I would like to know it for my trip. " * 7


async def measured(program: str, store: str) -> tuple[int, int, int]:
    """Bytes in the memory, bytes as a state, results that the model saw in the end."""
    os.environ["TURNWISE_STORE"] = store
    sys.modules.pop(program, None)
    model = ToolModel()
    async with model.serving() as url:
        os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "k"}
        runtime = importlib.import_module(program).runtime
        written = as_state = 0
        remember = runtime.store.remember

        async def counted(claim: Any, entries: Sequence[bytes], *more: Any, **named: Any) -> int:
            nonlocal written
            written += sum(map(len, entries))
            last: int = await remember(claim, entries, *more, **named)
            return last

        runtime.store.remember = counted
        async with runtime:
            for _ in range(TURNS):
                await runtime.ask("s", TEXT)
                as_state += sum(
                    len(one.body) for one in await runtime.store.memory("s", limit=9999)
                )
        seen = sum(message["role"] == "tool" for message in model.seen[-1])
    return written, as_state, seen


def store_at(kind: str, folder: str, urls: dict[str, str]) -> str:
    """A fresh store of this kind."""
    name = f"t{uuid.uuid4().hex}"
    if kind == "sqlite":
        return f"sqlite:///{folder}/{name}.db"
    return f"{urls[kind]}?{'prefix' if kind == 'redis' else 'schema'}={name}"


async def main() -> None:
    kinds = sys.argv[1:] or ["sqlite", "redis", "postgres"]
    print(f"bytes written in {TURNS} turns of {len(TEXT)} characters with one tool call each\n")
    print("| program | store | in the memory | as a state | results the model sees |")
    print("|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        urls: dict[str, str] = {}
        if "redis" in kinds:
            redis = RedisServer(Path(folder) / "redis", free_port())
            stack.callback(redis.kill)
            redis.start()
            urls["redis"] = redis.url
        if "postgres" in kinds:
            postgres = PostgresServer()
            stack.callback(postgres.stop)
            urls["postgres"] = postgres.url
        for program, name in PROGRAMS.items():
            for kind in kinds:
                written, as_state, seen = await measured(program, store_at(kind, folder, urls))
                print(f"| {name} | {kind} | {written:,} | {as_state:,} | {seen} |", flush=True)


asyncio.run(main())
