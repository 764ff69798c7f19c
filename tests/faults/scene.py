"""A scene: a store, servers and workers on it as processes, and people who talk to them."""

from __future__ import annotations

import asyncio
import math
import os
import random
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from changeful import SETTINGS, Changeful
from foreign import Foreign
from people import Person
from verdict import Verdict

from conftest import HERE, Process, WorkerProcess, free_port
from postgres_servers import PostgresPair, PostgresServer
from proxies import Cutter
from redis_servers import RedisCluster, RedisServer

LEASE = 2.0
EARLIER = "1858f1d"
"""The commit from which on processes of two versions may share a store."""
FIRST = "878c557"
"""The last commit of the first edition, whose SQLite files are of schema 2."""
SMALL, LITTLE = 200, "max_wal_size = 64MB\nmin_wal_size = 32MB\n"
"""The MB of a small disk, and the settings with which PostgreSQL fits on it."""
PEOPLE = 6
ALWAYS = ("--appendfsync", "always")
"""With `everysec` a Redis whose disk is slow answers before it writes."""


@dataclass
class Cast:
    """What a scene begins with: how many processes of each kind, and what they are given."""

    servers: int = 2
    workers: int = 0
    serving_only: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    proxied: bool = False
    replicas: bool = False
    standby: bool = False
    """PostgreSQL has one, which each commit waits for."""
    small_disk: bool = False
    """PostgreSQL has a disk of its own, which can be full."""
    bot: str = "bots:faulty"
    mortal: bool = False
    """The servers die where a file tells them to."""
    newer: bool = False
    """The last of the servers is of a newer version."""
    older: str = ""
    """All processes are of the version of this commit, until they are replaced."""
    deeds: tuple[str, ...] = ()
    """What people do who change their minds."""
    owner: str = ""
    """Whose sessions all of theirs are, if they share one."""
    foreign: bool = False
    """People use other people's clients."""


class MortalServer(Process):
    """A server whose application is wrapped in tests/faults/mortal.py."""

    def __init__(
        self, folder: Path, bot: str, *flags: str, store: str, environment: dict[str, str]
    ) -> None:
        given = {"TURNWISE_BOT": bot, "TURNWISE_STORE": store, "TURNWISE_WORK": "0"}
        given["PYTHONPATH"] = f"{HERE}/faults{os.pathsep}{HERE}"
        super().__init__(folder, bot, store=store, environment={**environment, **given})
        self._command = [sys.executable, "-m", "uvicorn", "mortal:app", "--port", str(self.port)]


class AppServer(Process):
    """A server that is an application of its own, `module:name`, in this folder."""

    def __init__(
        self, folder: Path, bot: str, *_: str, store: str, environment: dict[str, str]
    ) -> None:
        given = {"TURNWISE_STORE": store, "PYTHONPATH": f"{HERE}/faults{os.pathsep}{HERE}"}
        super().__init__(folder, bot, store=store, environment={**environment, **given})
        self._command = [sys.executable, "-m", "uvicorn", bot, "--port", str(self.port)]


class Scene:
    """The processes of one test and those who talk to them.

    `redis`, `cluster` and `proxy` are there where the store and the cast have them; `nodes` are
    all servers of Redis. `rolled_back` are the times, by the monotonic clock, at which the store
    lost what it had last.
    """

    redis: RedisServer
    cluster: RedisCluster
    proxy: Cutter
    postgres: PostgresServer
    pair: PostgresPair

    def __init__(self, folder: Path, kind: str, cast: Cast) -> None:
        self.folder = folder
        self.kind = kind
        self.cast = cast
        self.nodes: list[RedisServer] = []
        self.servers: list[Process] = []
        self.workers: list[Process] = []
        self.people: list[Person] = []
        self.orders: list[str] = []
        self.rolled_back: list[float] = []
        self.restarts = 0
        self.resting: set[Process] = set()
        """Processes that nobody should start again."""

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return self.folder / "p.db"

    @property
    def clock(self) -> Path:
        """The file that says how far the wall clock of the processes is ahead, in seconds."""
        return self.folder / "clock"

    # Beginning and ending

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path, kind: str, cast: Cast) -> AsyncIterator[Scene]:
        scene = cls(folder, kind, cast)
        try:
            store = await scene._begin_store()
            await scene._begin_processes(store)
            supervising = asyncio.create_task(scene._supervise())
            try:
                yield scene
            finally:
                supervising.cancel()
        finally:
            await scene._end()

    async def _begin_store(self) -> str:
        prefix = f"?prefix={secrets.token_hex(6)}"
        if self.kind == "redis-cluster":
            ports = [free_port() for _ in range(6 if self.cast.replicas else 3)]
            self.cluster = RedisCluster(self.folder / "cluster", ports)
            self.nodes = self.cluster.nodes
            await asyncio.to_thread(self.cluster.start)
            return self.cluster.url + prefix + ("&replicas=1" if self.cast.replicas else "")
        if self.kind == "redis":
            self.redis = RedisServer(self.folder / "redis", free_port(), *ALWAYS)
            self.nodes = [self.redis]
            await asyncio.to_thread(self.redis.start)
            url = self.redis.url
            if self.cast.proxied:
                self.proxy = await Cutter(self.redis.port).__aenter__()
                url = url.replace(str(self.redis.port), str(self.proxy.port))
            return url + prefix
        if self.kind == "postgres":
            if self.cast.standby:
                self.pair = await asyncio.to_thread(PostgresPair)
                await self.pair.settle()
                return self.pair.url
            disk = SMALL if self.cast.small_disk else None
            try:
                self.postgres = await asyncio.to_thread(lambda: PostgresServer(LITTLE, disk=disk))
            except OSError as error:
                pytest.skip(f"{error}")
            url = self.postgres.url
            if self.cast.proxied:
                self.proxy = await Cutter(self.postgres.port).__aenter__()
                url = url.replace(str(self.postgres.port), str(self.proxy.port))
            return url
        return f"sqlite:///{self.file}"

    async def _begin_processes(self, store: str) -> None:
        cast = self.cast
        self.clock.write_text("0")
        given = {"TURNWISE_LEASE": str(LEASE), "TURNWISE_LOG_LEVEL": "warning", **cast.environment}
        given |= SETTINGS if cast.deeds else {}
        if cast.older:
            place = await asyncio.to_thread(earlier_version, self.folder, cast.older)
            given["PYTHONPATH"] = f"{place}{os.pathsep}{HERE}"
        for i in range(cast.servers):
            environment = dict(given)
            if cast.newer and i == cast.servers - 1:
                newer = await asyncio.to_thread(newer_version, self.folder)
                path = environment.get("PYTHONPATH", str(Path(__file__).parents[1]))
                environment["PYTHONPATH"] = f"{newer}{os.pathsep}{path}"
            flags = ["--grace", "1", *(["--no-work"] if cast.serving_only else [])]
            own = AppServer if cast.bot.endswith(":app") else Process
            kind = MortalServer if cast.mortal else own
            process = kind(self._folder(), cast.bot, *flags, store=store, environment=environment)
            self.servers.append(process)
        for _ in range(cast.workers):
            self.workers.append(
                WorkerProcess(self._folder(), cast.bot, store=store, environment=given)
            )
        starting = [asyncio.to_thread(p.start) for p in (*self.servers, *self.workers)]
        await asyncio.gather(*starting)

    def _folder(self) -> Path:
        folder = self.folder / f"process-{secrets.token_hex(3)}"
        folder.mkdir()
        return folder

    async def _supervise(self) -> None:
        """Start again what has died, again if it dies before it is ready."""
        while True:
            await asyncio.sleep(0.05)
            for process in (*self.servers, *self.workers):
                if not process.running and process not in self.resting:
                    with suppress(AssertionError):
                        await asyncio.to_thread(process.start)
                        self.restarts += 1

    async def _end(self) -> None:
        for process in (*self.servers, *self.workers):
            if process.running:
                process.kill()
        if self.cast.proxied:
            await self.proxy.__aexit__()
        if "pair" in vars(self):
            await asyncio.to_thread(self.pair.stop)
        elif "postgres" in vars(self):
            await asyncio.to_thread(self.postgres.stop)
        for node in self.nodes:
            node.kill()

    # What happens in it

    async def play(self, strike: Callable[[], Awaitable[None]], times: int) -> Verdict:
        """People talk while `strike()` is called `times`; then all drains, and is judged."""
        async with self.talking() as verdict:
            await self.until(lambda: sum(len(one.acknowledged) for one in self.people) > 15)
            for _ in range(times):
                await strike()
                await asyncio.sleep(0.3)
        return verdict

    @asynccontextmanager
    async def talking(self, most: float = math.inf) -> AsyncIterator[Verdict]:
        """People talk meanwhile, each saying at `most` so much in a session; when it is over all
        drains, and the verdict is given."""
        enough, verdict = asyncio.Event(), Verdict(mixed=bool(self.cast.older))
        talking = [asyncio.create_task(self._talk(i, enough, most, verdict)) for i in range(PEOPLE)]
        try:
            yield verdict
            await self.until(lambda: not self.orders)
            await asyncio.sleep(0.3)
            enough.set()
            await asyncio.gather(*talking)
        finally:
            for task in talking:
                task.cancel()

    async def _talk(
        self, number: int, enough: asyncio.Event, most: float, verdict: Verdict
    ) -> None:
        """Someone who talks, and begins anew when all is said or their session is gone."""
        urls = [process.url for process in self.servers]
        lives = 0
        while not enough.is_set():
            name = f"p{number}.{lives}"
            person = self._person(name, urls)
            self.people.append(person)
            await person.talk(enough, most)
            await self._judge(person, verdict)
            lives += 1

    def _person(self, name: str, urls: list[str]) -> Person:
        chance, cast = random.Random(name), self.cast
        if cast.foreign:
            return Foreign(name, urls, self.orders, chance)
        if not cast.deeds:
            return Person(name, urls, self.orders, chance)
        return Changeful(name, urls, self.orders, chance, deeds=cast.deeds, owner=cast.owner)

    async def _judge(self, person: Person, verdict: Verdict) -> None:
        if person.told:
            verdict.acknowledged += len(person.acknowledged)
            verdict.lost += 0 if self.rolled_back else len(person.acknowledged)
            return
        async with httpx.AsyncClient(timeout=30.0) as client:
            messages, events = await person.history(client), await person.log(client)
        verdict.judge(person, messages, events, self.rolled_back)

    async def until(self, done: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for something that must come."""
        async with asyncio.timeout(seconds):
            while not done():
                await asyncio.sleep(0.02)


def earlier_version(folder: Path, commit: str) -> Path:
    """The program as it was."""
    place = folder / "earlier"
    if not place.exists():
        place.mkdir()
        command = ["git", "archive", commit, "src/turnwise"]
        made = subprocess.run(command, cwd=HERE.parent, capture_output=True)
        if made.returncode:
            pytest.skip(f"the repository's history does not hold {commit}")
        subprocess.run(["tar", "x", "-C", str(place)], input=made.stdout, check=True)
    return place / "src"


def newer_version(folder: Path) -> Path:
    """The program as it may be next year: another version, other texts of its scripts."""
    import turnwise

    place = folder / "newer"
    source = Path(turnwise.__file__).parent
    shutil.copytree(source, place / "turnwise", ignore=shutil.ignore_patterns("__pycache__"))
    for script in (place / "turnwise").rglob("*.lua"):
        script.write_text(script.read_text() + "\n-- and nothing else is new\n")
    return place
