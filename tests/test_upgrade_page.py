"""The page about upgrades, backups and disasters, walked through with real stores and a server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import apsw
import httpx
import pytest

from conftest import Process, Talker, fresh_store

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "upgrade.md"
BLOCK = re.compile(r'^```sh title="(walked through[^"]*)"\n(.+?)^```$', re.M | re.S)


def blocks(title: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE.read_text()) if found == title]


class Walk:
    """A folder with a store, and the page's lines run there."""

    def __init__(self, folder: Path, **names: str) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, **names}

    def run(self, text: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", text], cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout + done.stderr


async def talked(process: Process, count: int) -> list[Talker]:
    """People who have each said something; their clients are closed."""
    async with process.client() as client:
        talkers = [await Talker.make(client, name=f"person {i}") for i in range(count)]
        for i, talker in enumerate(talkers):
            await talker.say(f"hello {i}")
    return talkers


async def still_there(process: Process, talkers: list[Talker]) -> None:
    """Each goes on with the same token where it was, and the messages are counted on."""
    async with process.client() as client:
        for i, talker in enumerate(talkers):
            talker.client = client
            assert (await talker.history())[0] == f"hello {i}"
            assert (await talker.say("again"))["n"] == 2


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
async def test_backed_up_and_restored(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, processes: list[Process]
) -> None:
    """Backed up while it runs, restored into an empty store, from which clients go on with their
    tokens; a copied file takes the place of the old one."""
    store = f"sqlite:///{tmp_path / 'chat.db'}"
    empty = f"sqlite:///{tmp_path / 'restored.db'}"
    if kind != "sqlite":
        store, empty = fresh_store(kind, request), fresh_store(kind, request)
    walk = Walk(tmp_path, STORE=store, EMPTY=empty)
    process = Process(tmp_path, "bots:echo", store=store)
    processes.append(process)
    process.start()
    talkers = await talked(process, 3)
    check, export, restore = blocks("walked through")
    assert "person 1" in walk.run(check)
    walk.run(export)
    if kind == "sqlite":
        copy, replace = blocks("walked through on sqlite")
        walk.run(copy)
        process.stop()
        walk.run(replace)
        process.start()
        await still_there(process, talkers)
    process.stop()
    assert "Imported 3 sessions" in walk.run(restore)
    restored = Process(tmp_path, "bots:echo", store=empty)
    processes.append(restored)
    restored.start()
    await still_there(restored, talkers)


async def test_what_is_rescued_from_a_damaged_file(
    tmp_path: Path, processes: list[Process]
) -> None:
    """All but the damaged session, which the command names."""
    store, rescued = (f"sqlite:///{tmp_path / name}" for name in ("chat.db", "rescued.db"))
    process = Process(tmp_path, "bots:echo", store=store)
    processes.append(process)
    process.start()
    talkers = await talked(process, 3)
    process.stop()
    with apsw.Connection(str(tmp_path / "chat.db")) as db:
        db.execute("UPDATE header SET body = x'00' WHERE id = ?", (talkers[1].id,))
    (rescue,) = blocks("walked through after damage")
    said = Walk(tmp_path, STORE=store, RESCUED=rescued).run(rescue)
    assert talkers[1].id in said
    assert "Imported 2 sessions" in said
    fresh = Process(tmp_path, "bots:echo", store=rescued)
    processes.append(fresh)
    fresh.start()
    async with httpx.AsyncClient(base_url=fresh.url) as client:
        talkers[2].client = client
        assert (await talkers[2].history())[0] == "hello 2"
