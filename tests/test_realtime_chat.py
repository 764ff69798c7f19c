"""The realtime chat example: its own programs on Redis, killed and reconnected to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from conftest import free_port
from redis_servers import RedisServer

EXAMPLE = Path(__file__).parent.parent / "examples" / "realtime_chat"


@contextlib.contextmanager
def running(redis_url: str, webs: int, workers: int) -> Iterator[list[str]]:
    """So many web servers and workers, each a process; yields the servers' addresses."""
    environment = {**os.environ, "TURNWISE_STORE": redis_url, "TURNWISE_GRACE": "1"}
    ports = [free_port() for _ in range(webs)]
    commands = [
        ["-m", "uvicorn", "web:app", "--port", str(port), "--log-level", "warning"]
        for port in ports
    ]
    commands += [["worker.py"]] * workers
    started = [
        subprocess.Popen([sys.executable, *command], cwd=EXAMPLE, env=environment)
        for command in commands
    ]
    try:
        for port in ports:
            until = time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"http://127.0.0.1:{port}/openapi.json")
                    break
                assert time.monotonic() < until
                time.sleep(0.05)
        yield [f"127.0.0.1:{port}" for port in ports]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(20)


@pytest.fixture
def store(redis_server: RedisServer) -> str:
    return f"{redis_server.url}?prefix={secrets.token_hex(6)}"


async def new_token(web: str, name: str) -> str:
    async with httpx.AsyncClient(timeout=60) as client:
        response = await client.post(f"http://{web}/token", params={"name": name})
        assert response.status_code == 200, response.text
        token: str = response.json()["token"]
        return token


def chat(web: str, token: str) -> websockets.connect:
    return websockets.connect(f"ws://{web}/chat?token={token}")


async def replies(socket: Any, count: int) -> list[str]:
    """The next `count` replies."""
    found: list[str] = []
    while len(found) < count:
        event = json.loads(await socket.recv())
        if event["type"] == "message":
            found.append(event["message"]["text"].strip())
    return found


@pytest.mark.slow
async def test_fifty_clients_of_eight_messages(store: str) -> None:
    """Two web servers, three workers: 400 right answers, each once, in order, to the right one;
    half of the clients leave in the middle and come back through the other server."""
    with running(store, webs=2, workers=3) as webs:

        async def talk(number: int) -> None:
            name, web = f"client{number}", webs[number % 2]
            token = await new_token(web, name)
            expected = [f"{name}, your message {i} was: m{i} of {number}" for i in range(1, 9)]
            async with chat(web, token) as socket:
                assert json.loads(await socket.recv())["messages"] == []
                for i in range(1, 9):
                    await socket.send(f"m{i} of {number}")
                if number % 4 < 2:
                    assert await replies(socket, 8) == expected
                else:
                    assert await replies(socket, 3) == expected[:3]
            async with chat(webs[1 - number % 2], token) as socket:
                history = json.loads(await socket.recv())
                said = [m["text"].strip() for m in history["messages"] if m["role"] != "user"]
                assert said == expected[: len(said)]
                said += await replies(socket, 8 - len(said))
                assert said == expected
                assert all(m["id"] and m["time"] for m in history["messages"])

        async with asyncio.timeout(90):
            await asyncio.gather(*(talk(number) for number in range(50)))


async def test_tokens(store: str) -> None:
    """An empty name is refused; a token opens its own session, and a refresh replaces it."""
    with running(store, webs=1, workers=1) as (web,):
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=f"http://{web}", limits=limits) as client:
            for params in ({}, {"name": ""}, {"name": "  "}):
                assert (await client.post("/token", params=params)).status_code == 400
            old = await new_token(web, "Ada")
            async with chat(web, old) as socket:
                await socket.recv()
                await socket.send("hi")
                await replies(socket, 1)
                await socket.send("   ")
                while (event := json.loads(await socket.recv()))["type"] != "error":
                    pass
                assert event["code"] == "invalid"
                renewed = await client.post("/refresh_token", params={"token": old})
                body = renewed.json()
                assert (body["name"], body["expires_in"]) == ("Ada", 3600)
                assert [m["role"] for m in body["messages"]] == ["user", "assistant"]
                with contextlib.suppress(websockets.ConnectionClosedError):
                    async for _ in socket:  # the old one opens nothing: this ends
                        pass
            again = await client.post("/refresh_token", params={"token": old})
            assert again.status_code == 401
        for token in (old, "nonsense", ""):
            with pytest.raises(websockets.InvalidStatus):
                async with chat(web, token):
                    pass
        async with chat(web, body["token"]) as socket:
            assert len(json.loads(await socket.recv())["messages"]) == 2
