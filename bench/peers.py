"""The field, side by side: `make bench-peers`. The same job for each: a turn whose reply is five
words, waited for, streamed, resumed, and under way when the server is killed.

Each runs as one process on one core, the client on the other, with the store there, too. What is
installed is pinned in contestants.py and kept in .peers/.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvloop

from client import Connection, rate
from contestants import APPS, CONTESTANTS, VENVS, Contestant, Request, environment
from measure import CLIENT_CORE, SERVER_CORE, free_port

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from postgres_servers import PostgresServer
from redis_servers import RedisServer

SESSIONS = 32
SECONDS = 8.0
UNDER_WAY = 20
"""Turns that a kill interrupts, each of them three seconds long."""
PATIENCE = 30.0
"""Seconds that a server has, once it is there again, to answer what it had acknowledged."""
WORDS = "word " * 5


def install(contestant: Contestant) -> None:
    """Make its virtual environment, if it is not there."""
    if not contestant.folder or contestant.python.exists():
        return
    folder = VENVS / contestant.folder
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(contestant.python), "-m", "pip", "install", "--quiet", *contestant.packages]
    subprocess.run(pip, check=True)


@contextlib.contextmanager
def stored(kind: str, folder: Path) -> Iterator[str]:
    """The store of a contestant; yields its URL."""
    if kind == "redis":
        redis = RedisServer(folder / "redis", free_port())
        redis.start()
        try:
            yield redis.url
        finally:
            redis.kill()
    elif kind == "postgres":
        postgres = PostgresServer()
        try:
            yield postgres.url
        finally:
            postgres.stop()
    else:
        yield f"sqlite:///{folder / 'peer.db'}"


class Server:
    """A contestant's server, all of its processes, which can be killed and started again."""

    def __init__(self, contestant: Contestant, store: str, folder: Path) -> None:
        self._contestant, self._store, self._folder = contestant, store, folder
        self.port = free_port()
        self.runs = folder / "runs"
        for name in contestant.files:
            shutil.copy(APPS / name, folder)

    async def start(self, delay: float = 0.0) -> None:
        given = environment(
            self._contestant, self._store, PEER_DELAY=str(delay), PEER_RUNS=str(self.runs)
        )
        given["PYTHONPATH"] = str(APPS)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220
                self._contestant.command(self.port), env=given, cwd=self._folder, stdout=log,
                stderr=log, start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
            )  # fmt: skip
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    connection = await Connection(self.port).open()
                    await connection.request("GET", self._contestant.ready)
                    connection.close()
                    break
                await asyncio.sleep(0.1)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def memory(self) -> float:
        """MB of all its processes."""
        command = ["ps", "-e", "-o", "pgid=,rss="]
        rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        mine = [line.split() for line in rows.splitlines()]
        return sum(int(kb) for group, kb in mine if int(group) == self._process.pid) / 1024


class Person:
    """A session on a connection."""

    def __init__(self, contestant: Contestant, connection: Connection, session: Any) -> None:
        self.contestant, self.connection, self.session = contestant, connection, session

    @classmethod
    async def come(cls, contestant: Contestant, port: int) -> Person:
        connection = await Connection(port).open()
        return cls(contestant, connection, await contestant.begin(connection))

    async def call(self, request: Request) -> bytes:
        return await self.connection.request(*request)

    async def asking(self) -> AsyncIterator[None]:
        """Turn after turn, each waited for."""
        while True:
            answer = await self.call(self.contestant.ask(self.session, "hello"))
            assert answer.count(b"word ") >= 5, answer
            yield

    async def streaming(self) -> AsyncIterator[None]:
        while True:
            await self.stream()
            yield

    async def stream(self) -> float:
        """A streamed turn; seconds until its first word."""
        began, first, words = time.perf_counter(), 0.0, 0
        async for chunk in self.connection.stream(*self.contestant.stream(self.session, "hello")):
            words += chunk.count(b"word ")
            first = first or (time.perf_counter() - began if words else 0.0)
        assert words >= 5
        return first


async def speed(contestant: Contestant, server: Server) -> dict[str, str]:
    """Turns a second, waited for and streamed, the first word, and memory."""
    await server.start()
    people = [await Person.come(contestant, server.port) for _ in range(SESSIONS)]
    if contestant.streams:
        await people[0].stream()  # the first of all may have tables to make
    await rate([person.asking() for person in people], 1.0)
    row = {"turns/s": f"{await rate([p.asking() for p in people], SECONDS):,.0f}"}
    if contestant.streams:
        found = await rate([person.streaming() for person in people], SECONDS)
        row["streamed/s"] = f"{found:,.0f}"
        alone = await Person.come(contestant, server.port)
        first = statistics.median([await alone.stream() for _ in range(10)])
        row["ms to the first word, alone"] = f"{1000 * first:,.0f}"
    row["MB"] = f"{server.memory:,.0f}"
    server.kill()
    return row


async def resumed(contestant: Contestant, server: Server) -> str:
    """Whether a reader whose line was cut gets the rest of a reply that goes on."""
    if not (contestant.streams and contestant.resumes):
        return "no"
    await server.start(delay=1.0)
    person = await Person.come(contestant, server.port)
    run, words = None, 0
    async for chunk in person.connection.stream(*contestant.stream(person.session, "hello")):
        run = run or contestant.run_in(person.session, chunk, person.connection.head)
        words += chunk.count(b"word ")
        if words:
            break
    person.connection.close()
    again = await Connection(server.port).open()
    try:
        async with asyncio.timeout(10):
            async for chunk in again.stream(*contestant.resume(person.session, run)):
                words += chunk.count(b"word ")
                if words >= 5 and (b"completed" in chunk or b"Completed" in chunk):
                    break
    except (TimeoutError, RuntimeError, EOFError, OSError):
        pass
    server.kill()
    return "yes" if words >= 5 else "no"


async def killed(contestant: Contestant, server: Server) -> dict[str, str]:
    """kill -9 while turns are under way, which were acknowledged if the product does that."""
    await server.start(delay=3.0)
    people = [await Person.come(contestant, server.port) for _ in range(UNDER_WAY)]
    await asyncio.gather(*(p.call(contestant.ask(p.session, "before")) for p in people))
    acknowledged = 0
    if contestant.later:
        for person in people:  # some servers close a connection that rests for five seconds
            person.connection = await Connection(server.port).open()
        first = await Person.come(contestant, server.port)
        await first.call(contestant.send(first.session, "the first"))
        await asyncio.sleep(2)
        await asyncio.gather(*(p.call(contestant.send(p.session, "under way")) for p in people))
        acknowledged = UNDER_WAY
        waiting = []
    else:
        waiting = [
            asyncio.create_task(p.call(contestant.ask(p.session, "under way"))) for p in people
        ]
    await asyncio.sleep(0.6)
    server.kill()
    await asyncio.gather(*waiting, return_exceptions=True)
    await server.start(delay=0.1)
    found: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = collections.Counter([await state(contestant, server, p.session) for p in people])
        if found["answered"] == UNDER_WAY:
            break
        await asyncio.sleep(1)
    runs = server.runs.read_text().split("\n") if server.runs.exists() else []
    server.kill()
    return {
        "acknowledged": str(acknowledged),
        "answered": str(found["answered"]),
        "kept, never answered": str(found["unanswered"]),
        "answered twice": str(found["twice"]),
        "lost without trace": str(found["lost"]),
        "runs of the handler": str(runs.count("under way")),
    }


async def state(contestant: Contestant, server: Server, session: Any) -> str:
    """What has become of the turn that was under way."""
    connection = await Connection(server.port).open()
    texts = await contestant.history(connection, session)
    connection.close()
    if "under way" not in texts:
        return "lost"
    answers = sum(text.strip() == WORDS.strip() for text in texts[texts.index("under way") :])
    return ("unanswered", "answered")[answers] if answers < 2 else "twice"


async def main() -> None:
    os.sched_setaffinity(0, {CLIENT_CORE})
    rows = []
    for contestant in CONTESTANTS:
        if sys.argv[1:] and not any(one in contestant.name for one in sys.argv[1:]):
            continue
        install(contestant)
        row = {"": contestant.name}
        for part in (speed, resumed, killed):
            with (
                tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder,
                stored(contestant.store, Path(folder)) as store,
            ):
                server = Server(contestant, store, Path(folder))
                try:
                    found = await part(contestant, server)
                except (OSError, EOFError, RuntimeError, AssertionError) as error:
                    print(f"{contestant.name}: {error}", file=sys.stderr)
                    found = {"failed": part.__name__}
                    server.kill()
                row |= {"resumed": found} if isinstance(found, str) else found
        rows.append(row)
        print(row, flush=True)
    titles = list(rows[0])
    for line in (
        titles,
        ["---"] * len(titles),
        *([row.get(t, "") for t in titles] for row in rows),
    ):
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    uvloop.run(main())
