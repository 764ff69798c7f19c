"""The client as a package of npm: packed, installed without the network, typed, used from node."""

from __future__ import annotations

import asyncio
import json
import subprocess
from importlib import resources
from pathlib import Path

import pytest

import turnwise
from conftest import Opener
from test_clients import HERE, installed
from turnwise import Bot, Turn

pytestmark = pytest.mark.slow
SOURCE = Path(str(resources.files("turnwise.server").joinpath("page")))
PROGRAM = """
import { Client, Problem } from "turnwise";
const session = await new Client(process.argv[1]).create();
const turn = await session.ask("Hello");
console.log(turn.reply.text, Problem.name);
process.exit(0);
"""


def npm(folder: Path, *words: str) -> str:
    done = subprocess.run(["npm", *words], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_package(open_sqlite_door: Opener, tmp_path: Path) -> None:
    """It holds the module and its types and nothing else, has the version of the Python package,
    and talks to a server."""
    installed(HERE)  # or the test is skipped without node
    packed = json.loads(npm(SOURCE, "pack", "--json", "--pack-destination", str(tmp_path)))
    (package,) = packed.values() if isinstance(packed, dict) else packed
    assert package["version"] == turnwise.__version__
    assert {one["path"] for one in package["files"]} == {
        "package.json", "turnwise.js", "turnwise.d.ts",
    }  # fmt: skip
    (tmp_path / "package.json").write_text('{"type": "module"}')
    npm(tmp_path, "install", "--offline", "--no-audit", str(tmp_path / package["filename"]))
    bot = Bot()

    @bot.reply
    async def reply(turn: Turn) -> str:
        return f"You said: {turn.text}"

    async with open_sqlite_door(bot) as door:
        line = ["node", "--input-type=module", "--eval", PROGRAM, door.url]
        process = await asyncio.create_subprocess_exec(
            *line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said, complaints = await asyncio.wait_for(process.communicate(), 60)
        assert said.decode().strip() == "You said: Hello Problem", complaints
