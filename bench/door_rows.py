"""What a turn costs through the doors for other people's clients, beside our own door."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable

from client import Connection, Talker
from cost_rows import cpu as cpu_of
from cost_rows import each, micro
from measure import CONNECTIONS, PAIRS, Row, served

TURNS = 3200


def _ai_sdk(chat: str, n: int, before: int) -> bytes:
    said = {"id": f"m{n}", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
    shown = [{"id": f"msg_{before}", "role": "assistant", "parts": []}] if before else []
    return json.dumps({"id": chat, "messages": [*shown, said]}).encode()


def _ag_ui(chat: str, n: int) -> bytes:
    shown = [{"id": f"m{i}", "role": "user", "content": "hello"} for i in (n - 1, n) if i]
    return json.dumps({"threadId": chat, "runId": f"{chat} {n}", "messages": shown}).encode()


def _langgraph(n: int) -> bytes:
    said = {"type": "human", "id": f"m{n}", "content": "hello"}
    body = {"input": {"messages": [said]}, "if_not_exists": "create"}
    return json.dumps({**body, "stream_mode": "messages-tuple"}).encode()


class Door:
    """A conversation through one of the doors."""

    def __init__(self, connection: Connection, chat: str) -> None:
        self.connection = connection
        self.chat = chat
        self.n = 0

    async def drain(self, path: str, body: bytes) -> None:
        async for _ in self.connection.stream("POST", path, body):
            pass

    async def openai(self) -> None:
        body = b'{"conversation": "%b", "input": "hello"}' % self.chat.encode()
        await self.connection.request("POST", "/openai/v1/responses", body)

    async def ai_sdk(self) -> None:
        self.n += 1
        await self.drain("/ai-sdk/chat", _ai_sdk(self.chat, self.n, self.n - 1))

    async def ag_ui(self) -> None:
        self.n += 1
        await self.drain("/ag-ui", _ag_ui(self.chat, self.n))

    async def langgraph(self) -> None:
        self.n += 1
        path = f"/langgraph/threads/{self.chat}/runs/stream"
        await self.drain(path, _langgraph(self.n))


async def _through(doors: list[Door], name: str) -> None:
    """`TURNS` turns in all, one at a time in each conversation."""

    async def work(door: Door) -> None:
        turn: Callable[[], Awaitable[None]] = getattr(door, name)
        for _ in range(TURNS // CONNECTIONS):
            await turn()

    await asyncio.gather(*map(work, doors))


async def bench_doors() -> AsyncIterator[Row]:
    with served("turns", factory=True) as ours:
        talkers = [await Talker.make(ours.port) for _ in range(CONNECTIONS)]
        for name in ("openai", "ai_sdk", "ag_ui", "langgraph"):
            theirs, own = [], []
            for pair in range(PAIRS):
                doors = [
                    Door(await Connection(ours.port).open(), f"{name}-{pair}-{i}")
                    for i in range(CONNECTIONS)
                ]
                own.append(await micro(lambda: cpu_of(ours.pid), each(talkers)))
                theirs.append(await micro(lambda: cpu_of(ours.pid), _through(doors, name)))
                for door in doors:
                    door.connection.close()
            ratio = statistics.median(a / b for a, b in zip(theirs, own, strict=True))
            yield Row(
                f"µs of CPU a turn through {name}, beside our own door",
                statistics.median(theirs), statistics.median(own), ratio, "",
            )  # fmt: skip
