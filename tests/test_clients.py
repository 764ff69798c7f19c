"""Other people's clients, unchanged, on two processes of one server: the packages of npm and PyPI.

Each driver in clients/ goes through the same behaviours, and says of each "yes", "no" with the
reason, or what is there instead. docs/reference/protocols.md has the table of one run.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from conftest import Process, needs
from proxies import Cutter

HERE = Path(__file__).parent / "clients"
KEY = "the-key"
DRIVERS = {
    "openai": HERE,
    "ai": HERE,
    "ag_ui": HERE,
    "langgraph": HERE,
    "earlier openai": HERE / "versions" / "earlier",
    "earlier ai": HERE / "versions" / "earlier",
    "earlier ag_ui": HERE / "versions" / "earlier",
    "early ai": HERE / "versions" / "early",
}
"""Each driver, by the versions of its packages, and the folder that has them."""
PACKAGES = {
    "openai": "openai",
    "ai": "ai",
    "ag_ui": "@ag-ui/client",
    "langgraph": "@langchain/langgraph-sdk",
}
ALL = os.environ.get("CLIENTS") == "all"
TABLE = os.environ.get("CLIENTS_TABLE")
"""Where a run leaves what it has found: a folder."""
BEHAVIOURS = (
    "send",
    "stream",
    "queue",
    "resume after a cut line",
    "resume after SIGKILL on another process",
    "stop, and the partial text stays",
    "failure, and the next message works",
    "regenerate and edit",
    "tools and reasoning of the bot",
    "an approval",
    "a tool of the client",
    "two owners with equal ids",
    "a retry does not double",
    "the same ids in stream and history",
)


def installed(folder: Path) -> Path:
    """A folder with the drivers and the packages that its package-lock.json pins."""
    needs(bool(shutil.which("node") and shutil.which("npm")), "node and npm are not installed")
    lock, done = folder / "package-lock.json", folder / "node_modules" / ".done"
    with FileLock(HERE / ".installing"):
        if not done.exists() or done.read_bytes() != lock.read_bytes():
            command = ("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            done.write_bytes(lock.read_bytes())
        if folder.parent.name == "versions":
            for driver in HERE.glob("*.mjs"):
                shutil.copy(driver, folder)
    return folder


class World:
    """Two processes on one store, and a line to the first that can be cut."""

    def __init__(self, folder: Path, store: str) -> None:
        environment = {"TURNWISE_LEASE": "2"}
        flags = ("--api-keys", KEY)
        self.first, self.other = (
            Process(folder, "bots:clients", *flags, store=store, environment=environment)
            for _ in range(2)
        )

    def start(self) -> None:
        for process in (self.first, self.other):
            process.start()

    def end(self) -> None:
        for process in (self.first, self.other):
            if process.running:
                process.kill()

    async def drive(self, driver: str, folder: Path) -> dict[str, str]:
        """What a driver says of each behaviour."""
        async with Cutter(self.first.port) as cutter:
            world = {
                "url": self.first.url, "other": self.other.url, "key": KEY,
                "cut": f"http://127.0.0.1:{cutter.port}",
            }  # fmt: skip
            node = await asyncio.create_subprocess_exec(
                "node", f"{driver}.mjs", json.dumps(world), cwd=folder,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert node.stdout is not None
            assert node.stdin is not None
            found: dict[str, str] = {}
            async for line in node.stdout:
                if not line.startswith(b"{"):
                    continue
                said: dict[str, Any] = json.loads(line)
                if "do" in said:
                    await self._do(said["do"], cutter)
                    node.stdin.write(b"done\n")
                else:
                    found[said["name"]] = said["result"]
            await node.wait()
            return found

    async def _do(self, what: str, cutter: Cutter) -> None:
        if what == "cut":
            for half in list(cutter.halves):
                half.end()
        elif what == "kill":
            self.first.kill()
        elif not self.first.running:
            await asyncio.to_thread(self.first.start)


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> Iterator[Callable[[], World]]:
    made: list[World] = []

    def make() -> World:
        made.append(World(tmp_path, store_url))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("store_url", ["sqlite", "redis"] if ALL else ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", [name for name in DRIVERS if ALL or " " not in name])
async def test_a_client_finds_what_it_expects(
    world: Callable[[], World], name: str, store_url: str
) -> None:
    """All behaviours, with the package as it is."""
    folder, driver = installed(DRIVERS[name]), name.rpartition(" ")[2]
    found = await world().drive(driver, folder)
    if TABLE:
        package = folder / "node_modules" / PACKAGES[driver] / "package.json"
        found["version"] = f"{PACKAGES[driver]} {json.loads(package.read_text())['version']}"
        place = Path(TABLE) / f"{name} {store_url.partition(':')[0]}.json"
        place.write_text(json.dumps(found))
    assert [one for one in BEHAVIOURS if one not in found] == []
    wrong = {one: result for one, result in found.items() if result.startswith("no:")}
    assert not wrong, "\n\n".join(f"{one}: {result}" for one, result in wrong.items())


@pytest.mark.slow
@pytest.mark.skipif(not ALL, reason="`make clients` runs it")
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_copilotkit(world: Callable[[], World]) -> None:
    """Its core finds the agent, runs, stops and connects, over both of its transports."""
    found = await world().drive("copilotkit", installed(HERE / "versions" / "copilotkit"))
    assert len(found) == 2
    assert set(found.values()) == {"yes"}, found
