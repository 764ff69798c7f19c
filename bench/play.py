"""The same plan with real processes: servers, workers, a Redis and a client on this machine."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from client import Connection
from cost_rows import cpu
from measure import HERE, await_port, free_port
from plan import Answered, Arrival, Plan, Trouble

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from redis_servers import RedisServer

KEY = "authorization: Bearer the-key\r\n"
RETRY = 0.3
ALONE = 40
"""Turns one after the other, before the plan begins."""
MAKING = 64
"""Connections that make the sessions."""


class Played:
    """What was seen: the answers, the attempts made anew, seconds of CPU of the client, how long a
    process took to be ready, and how long a turn takes that is alone, without its handler."""

    def __init__(self) -> None:
        self.answered: list[Answered] = []
        self.again = 0
        self.client = 0.0
        self.boot = 0.0
        self.alone = 0.0


class Play:
    """The processes of a plan, on a store."""

    def __init__(self, plan: Plan, store: str) -> None:
        self.plan = plan
        self.played = Played()
        self.ports = [free_port() for _ in range(plan.servers)]
        self.serving = [True] * plan.servers
        self._environment = {
            **os.environ, "TURNWISE_STORE": store, "TURNWISE_LEASE": str(plan.lease),
            "TURNWISE_CONCURRENCY": str(plan.slots), "TURNWISE_GRACE": str(plan.grace),
            "TURNWISE_API_KEYS": "the-key", "TURNWISE_LOG_LEVEL": "error",
        }  # fmt: skip
        self._servers: list[subprocess.Popen[bytes]] = []
        self._workers: list[subprocess.Popen[bytes]] = []
        self._idle: dict[int, list[Connection]] = {port: [] for port in self.ports}
        self._paths: dict[int, str] = {}
        self._turn = itertools.count()

    async def run(self) -> Played:
        """Start everything, go through the plan, and stop everything."""
        try:
            for n in range(self.plan.servers):
                self._servers.append(self._spawn("serve", "--no-work", "--port", self.ports[n]))
            for _ in range(self.plan.workers):
                self._workers.append((await self._worker())[0])
            await asyncio.gather(*(asyncio.to_thread(await_port, port) for port in self.ports))
            await self._make_sessions()
            await self._be_alone()
            await self._perform()
        finally:
            for process in (*self._servers, *self._workers):
                process.kill()
                process.wait()
        return self.played

    def _spawn(self, command: str, *flags: Any) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "turnwise", command, "servers:sleeper", *map(str, flags)]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(line, cwd=HERE, env=self._environment, **quiet)

    async def _worker(self) -> tuple[subprocess.Popen[bytes], float]:
        """A worker that is ready, and the seconds that it took."""
        port, began = free_port(), time.monotonic()
        worker = self._spawn("work", "--metrics-port", port)
        await asyncio.to_thread(await_port, port)
        return worker, time.monotonic() - began

    async def _be_alone(self) -> None:
        """How long a turn takes while nothing else happens."""
        times = []
        for session in list(self._paths)[:ALONE]:
            began = time.monotonic()
            headers = f"{KEY}prefer: wait=60\r\n"
            await self._ask(self._paths[session], b'{"text":"0"}', headers)
            times.append(time.monotonic() - began)
        self.played.alone = statistics.median(times)

    async def _make_sessions(self) -> None:
        """Those of the plan and the flood's, each its owner's."""
        owners = {one.session: one.owner for one in self.plan.arrivals()}
        waiting = iter(owners.items())

        async def make() -> None:
            connection = await Connection(self.ports[0]).open()
            for session, owner in waiting:
                headers = f"{KEY}x-turnwise-owner: {owner}\r\n"
                made = await connection.request("POST", "/sessions", b"{}", headers)
                self._paths[session] = f"/sessions/{json.loads(made)['id']}/turns"

        await asyncio.gather(*(make() for _ in range(MAKING)))

    async def _perform(self) -> None:
        began, used = time.monotonic(), cpu(os.getpid())
        tasks = [asyncio.create_task(self._trouble(one, began)) for one in self.plan.troubles]
        for arrival in self.plan.arrivals():
            late = began + arrival.at - time.monotonic()
            if late > 0:
                await asyncio.sleep(late)
            tasks.append(asyncio.create_task(self._say(arrival, began)))
        await asyncio.gather(*tasks)
        self.played.client = (cpu(os.getpid()) - used) / len(self.played.answered)

    async def _say(self, arrival: Arrival, began: float) -> None:
        """Say something, again if the server goes away, until the reply is there."""
        body = json.dumps({"text": f"{arrival.seconds:.4f}"}).encode()
        headers = f"{KEY}prefer: wait=60\r\nidempotency-key: {next(self._turn)}\r\n"
        path = self._paths[arrival.session]
        while True:
            answer = await self._ask(path, body, headers)
            if answer is not None and b'"status":"completed"' in answer:
                break
            await asyncio.sleep(RETRY)
        self.played.again += b'"attempt":1' not in answer
        took = time.monotonic() - began - arrival.at
        self.played.answered.append(Answered(arrival.at, arrival.owner, arrival.seconds, took))

    async def _ask(self, path: str, body: bytes, headers: str) -> bytes | None:
        """One request to a server that is not being replaced; None if it went away."""
        up = [port for port, serving in zip(self.ports, self.serving, strict=True) if serving]
        port = up[next(self._turn) % len(up)]
        idle = self._idle[port]
        with suppress(OSError, EOFError, RuntimeError, ValueError):
            connection = idle.pop() if idle else await Connection(port).open()
            answer = await connection.request("POST", path, body, headers)
            idle.append(connection)
            return answer
        return None

    # Trouble

    async def _trouble(self, trouble: Trouble, began: float) -> None:
        await asyncio.sleep(began + trouble.at - time.monotonic())
        if trouble.what == "kill":
            self._workers[trouble.number].kill()
            self._workers[trouble.number].wait()
        elif trouble.what == "start":
            self._workers[trouble.number] = (await self._worker())[0]
        elif trouble.what == "deploy":
            await self._replace()

    async def _replace(self) -> None:
        for n, worker in enumerate(self._workers):
            worker.send_signal(signal.SIGTERM)
            await asyncio.to_thread(worker.wait)
            self._workers[n], self.played.boot = await self._worker()
        for n, server in enumerate(self._servers):
            self.serving[n] = False
            server.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait)
            self._idle[self.ports[n]].clear()
            self._servers[n] = self._spawn("serve", "--no-work", "--port", self.ports[n])
            await asyncio.to_thread(await_port, self.ports[n])
            self.serving[n] = True


async def play(plan: Plan) -> Played:
    """Go through a plan with real processes on a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="turnwise-play-") as folder:
        redis = RedisServer(Path(folder), free_port())
        redis.start()
        try:
            return await Play(plan, redis.url).run()
        finally:
            redis.kill()
