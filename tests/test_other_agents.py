"""Other people's agents behind Turnwise: the programs of examples/, each with the same story.

They run as processes of their own, which are killed for real, beside a server that speaks OpenAI's
protocol. Their tool get_weather writes a line into the file RUNS for each run; send_mail does too,
and needs approval.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import free_port
from tool_model import ToolModel

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = [
    "agent_openai_chat",
    "agent_mcp",
    "agent_pydantic_ai",
    "agent_openai_agents",
    "agent_langgraph",
]
STORES = os.environ.get("AGENT_STORES", "sqlite").split()
"""`AGENT_STORES="sqlite redis postgres"` tells the story on each of them."""
WEATHER = "What is the weather in Paris?"
Place = tuple[str, dict[str, str]]
"""A session's path, and who may use it."""
pytestmark = pytest.mark.slow


class World:
    """Processes of one example on one store, and a person who talks to them."""

    def __init__(self, example: str, folder: Path, model: ToolModel, url: str, store: str) -> None:
        self.example = example
        self.store = store
        self.folder = folder
        self.model = model
        self._model_url = url
        self._processes: list[subprocess.Popen[bytes]] = []
        self.path = ""
        self.auth: dict[str, str] = {}
        self.client = httpx.AsyncClient(timeout=30.0)

    async def start(self) -> None:
        """One more process; it is the one that is talked to."""
        port = free_port()
        environment = {
            **os.environ,
            "PYTHONPATH": str(EXAMPLES),
            "OPENAI_BASE_URL": self._model_url,
            "OPENAI_API_KEY": "k",
            "TURNWISE_STORE": self.store,
            "TURNWISE_GRACE": "0.5",
            # A SQLite file tells at once who has died; elsewhere the lease must end first.
            "TURNWISE_LEASE": "15" if self.store.startswith("sqlite") else "3",
            "RUNS": str(self.folder / "runs"),
        }
        command = [sys.executable, "-m", "uvicorn", f"{self.example}:app", "--port", str(port)]
        process = subprocess.Popen(  # noqa: ASYNC220 it takes a moment, and nothing else goes on
            [*command, "--log-level", "warning"], cwd=self.folder, env=environment
        )
        self._processes.append(process)
        self.url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(60):
            while True:
                assert process.poll() is None
                with contextlib.suppress(httpx.TransportError):
                    if (await self.client.get(f"{self.url}/openapi.json")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
        if not self.path:
            await self.begin()

    async def begin(self) -> None:
        """A session, which is the one that is talked in."""
        made = (await self.client.post(f"{self.url}/sessions", json={})).json()
        self.path = f"/sessions/{made['id']}"
        self.auth = {"Authorization": f"Bearer {made['token']}"}

    def kill(self) -> None:
        """kill -9 of the process that was started last."""
        process = self._processes.pop()
        process.kill()
        process.wait()

    async def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        await self.client.aclose()

    async def call(self, method: str, path: str, **more: Any) -> Any:
        headers = {**self.auth, **more.pop("headers", {})}
        url = self.url + self.path + path
        response = await self.client.request(method, url, headers=headers, **more)
        assert response.status_code < 300, response.text
        return response.json()

    async def say(self, text: str, *, wait: bool = True, **body: Any) -> dict[str, Any]:
        headers = {"Prefer": "wait=30"} if wait else {}
        body = {"text": text, **body}
        turn: dict[str, Any] = await self.call("POST", "/turns", json=body, headers=headers)
        return turn

    async def events(self, after: Any = 0, wait: int = 0) -> list[dict[str, Any]]:
        headers = {"Accept": "application/json"}
        page = await self.call(
            "GET", f"/events?after={after}&wait={wait}&limit=500", headers=headers
        )
        found: list[dict[str, Any]] = page["events"]
        return found

    async def words(self, turn: int, count: int) -> None:
        """Until the running turn has said so many pieces."""
        async with asyncio.timeout(30):
            while True:
                told = [e for e in await self.events() if e.get("turn") == turn]
                if sum(event["type"] == "delta" for event in told) >= count:
                    return
                await asyncio.sleep(0.05)

    async def end_of(self, turn: int) -> dict[str, Any]:
        found: dict[str, Any] = await self.call(
            "GET", f"/turns/{turn}", headers={"Prefer": "wait=30"}
        )
        return found

    @property
    def runs(self) -> list[str]:
        """What the tools have done."""
        file = self.folder / "runs"
        return file.read_text().split() if file.exists() else []


def store_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a fresh store of this kind."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'agent.db'}"
    server = request.getfixturevalue(f"{kind}_server")
    name = f"t{uuid.uuid4().hex}"
    return f"{server.url}?{'schema' if kind == 'postgres' else 'prefix'}={name}"


CASES = [(program, store) for store in STORES for program in PROGRAMS]


@pytest.fixture(params=CASES, ids=[f"{program}, {store}" for program, store in CASES])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """An example with one process."""
    program, kind = request.param
    model = ToolModel()
    async with model.serving() as url:
        found = World(program, tmp_path, model, url, store_of(kind, request, tmp_path))
        try:
            await found.start()
            yield found
        finally:
            await found.end()


async def test_an_agent_over_processes(world: World) -> None:
    """What an agent has begun in one process goes on in another, after a kill in mid-answer."""
    remembered = await a_tool_and_a_memory(world)
    await a_stop_in_mid_answer(world)
    asked = await two_questions(world)
    await world.begin()
    world.model.delay = 0.15
    await world.say(WEATHER, wait=False)
    await world.words(1, 3)
    killed = world.path, world.auth
    world.kill()
    world.model.delay = 0.0
    await world.start()
    await another_attempt(world, killed)
    world.path, world.auth = remembered
    assert (await world.say("how many"))["reply"]["text"].strip() == "I see 1 results."
    await two_answers(world, asked)


async def a_tool_and_a_memory(world: World) -> Place:
    """The call is a step, the answer streams, and in the next turn the model sees the result."""
    world.model.delay = 0.05
    turn = await world.say(WEATHER)
    assert turn["status"] == "completed", turn
    assert "20 degrees in Paris" in turn["reply"]["text"]
    assert [(s["name"], s["status"]) for s in turn["steps"]] == [("get_weather", "completed")]
    assert turn["steps"][0]["input"] == {"city": "Paris"}
    assert sum(event["type"] == "delta" for event in await world.events()) > 3
    assert (await world.say("how many"))["reply"]["text"].strip() == "I see 1 results."
    assert world.runs == ["get_weather:Paris"]
    return world.path, world.auth


async def a_stop_in_mid_answer(world: World) -> None:
    """What the tool said before the stop is seen by the model in the next turn."""
    await world.begin()
    world.model.delay = 0.15
    await world.say(WEATHER, wait=False)
    await world.words(1, 3)
    await world.call("POST", "/turns/1/cancel")
    assert (await world.end_of(1))["status"] == "cancelled"
    world.model.delay = 0.0
    assert (await world.say("how many"))["reply"]["text"].strip() == "I see 1 results."
    assert world.runs == ["get_weather:Paris"] * 2


async def another_attempt(world: World, killed: Place) -> None:
    """Another process answers, and the tool is not run again."""
    world.path, world.auth = killed
    turn = await world.end_of(1)
    assert (turn["status"], turn["attempt"]) == ("completed", 2), turn
    assert "20 degrees in Paris" in turn["reply"]["text"]
    assert world.runs == ["get_weather:Paris"] * 3
    assert (await world.say("how many"))["reply"]["text"].strip() == "I see 1 results."


async def two_questions(world: World) -> list[tuple[Place, str]]:
    """What was asked in two sessions, before something that needs approval is done."""
    asked = []
    for _ in range(2):
        await world.begin()
        turn = await world.say("mail Bob")
        (ask,) = [m["ask"] for m in turn["reply"]["messages"] if "ask" in m]
        assert ask["choices"] == ["yes", "no"]
        asked.append(((world.path, world.auth), ask["id"]))
    assert "send_mail:Bob" not in world.runs
    return asked


async def two_answers(world: World, asked: list[tuple[Place, str]]) -> None:
    """Only what was allowed is done, and once."""
    for (place, ask), value in zip(asked, ("no", "yes"), strict=True):
        world.path, world.auth = place
        turn = await world.say("", answers=[{"ask": ask, "value": value}])
        assert turn["status"] == "completed", turn
        assert turn["reply"]["text"].startswith("The tool says:")
        assert world.runs.count("send_mail:Bob") == (value == "yes")
