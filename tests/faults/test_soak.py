"""A long while of everything at once; afterwards all is as it was before.

`make soak` gives each kind of store its fourth of MINUTES (30); `make test` one of them a moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import nemesis
import pytest
from scene import LEASE, Cast, Scene

from conftest import Process, needs
from redis_servers import binary

MINUTES = float(os.environ.get("MINUTES", "0"))
KINDS = ("redis", "sqlite", "redis-cluster", "postgres") if MINUTES else ("redis",)
SLACK = 1.05
STORES: dict[str, list[Callable[[Scene], Awaitable[None]]]] = {
    "sqlite": [nemesis.another_process_holds_the_write_lock],
    "redis": [
        nemesis.redis_killed_and_restarted,
        nemesis.redis_frozen,
        nemesis.redis_scripts_flushed,
        nemesis.redis_memory_full,
        nemesis.redis_clients_killed_in_a_loop,
    ],
    "postgres": [
        nemesis.postgresql_killed_and_restarted,
        nemesis.postgresql_frozen,
        nemesis.postgresql_connections_cut_in_a_loop,
    ],
    "redis-cluster": [
        nemesis.redis_scripts_flushed,
        nemesis.redis_memory_full,
        nemesis.redis_clients_killed_in_a_loop,
    ],
}


class Use(NamedTuple):
    """What a process has in use."""

    kilobytes: int
    descriptors: int
    tasks: int
    connections: int

    @classmethod
    async def of(cls, process: Process, scene: Scene) -> Use:
        async with httpx.AsyncClient(base_url=process.url, timeout=30) as client:
            tasks = (await client.get("/tasks")).json()
        kilobytes, descriptors = told_by_the_kernel(process.pid)
        connections = 0
        for node in scene.nodes:
            with node.client() as redis:
                connections += redis.info("clients")["connected_clients"]
        if scene.kind == "postgres":
            count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            connections = await scene.postgres.value(count)
        return cls(kilobytes, descriptors, tasks, connections)


def told_by_the_kernel(pid: int) -> tuple[int, int]:
    """A process's memory in kB and its open descriptors."""
    status = Path(f"/proc/{pid}/status").read_text()
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(status.partition("VmRSS:")[2].split()[0]), descriptors


async def warm_up(scene: Scene, chance: random.Random) -> None:
    """Everything happens once that something is kept for, so that what grows later does not end.

    A Cluster's 16 partitions have two lines each, and a line is opened by the first turn of a
    session that it carries. What a fault needs of memory when it first comes, the allocator keeps.
    """
    async with scene.talking(most=20) as verdict:
        for fault in STORES[scene.kind] if MINUTES else ():
            await fault(scene)
        for _ in range(round(MINUTES)):
            await strike(scene, chance)

    assert verdict.clean, verdict

    async def one_turn(client: httpx.AsyncClient) -> None:
        made = (await client.post("/sessions", json={})).raise_for_status().json()
        auth = {"Authorization": f"Bearer {made['token']}"}
        path = f"/sessions/{made['id']}/turns"
        for _ in range(2):
            turn = {"text": "hello"}
            headers = {**auth, "Prefer": "wait=10"}
            (await client.post(path, json=turn, headers=headers)).raise_for_status()

    for server in scene.servers:
        async with httpx.AsyncClient(base_url=server.url, timeout=20.0) as client:
            await ready(client)
            for _ in range(40 if MINUTES else 8):
                await asyncio.gather(*(one_turn(client) for _ in range(10)))


async def ready(client: httpx.AsyncClient) -> None:
    """Return when the server is ready, which may have been killed a moment ago."""
    async with asyncio.timeout(20):
        while True:
            with suppress(httpx.TransportError):
                if (await client.get("/health/ready")).is_success:
                    return
            await asyncio.sleep(0.1)


async def strike(scene: Scene, chance: random.Random) -> None:
    """Something goes wrong, but never with the first server, which is measured."""
    victims = [*scene.servers[1:], *scene.workers]
    what = chance.choice(["kill", "stop", "term", "order", "store", "store"])
    if what == "kill":
        chance.choice(victims).kill()
    elif what == "term":
        chance.choice(victims).signal(signal.SIGTERM)
    elif what == "stop":
        victim = chance.choice(scene.workers)
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.1, 1.5 * LEASE))
        victim.signal(signal.SIGCONT)
    elif what == "order":
        points = ["after-claim", "after-deltas", "before-finish", "after-finish", "block"]
        scene.orders.append(chance.choice(points))
    else:
        await chance.choice(STORES[scene.kind])(scene)
    await scene.until(lambda: all(victim.running for victim in victims))


async def settled(scene: Scene, most: Use | None = None) -> Use:
    """What the first server uses once nothing is left to do; at most so much, if it comes to it."""
    until = time.monotonic() + 20
    while True:
        await asyncio.sleep(1.0)
        use = await Use.of(scene.servers[0], scene)
        if time.monotonic() > until or (most is not None and all(map(within, use, most))):
            return use
        if most is None and time.monotonic() > until - 16:
            return use


def within(used: int, before: int) -> bool:
    return used <= before * SLACK + 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_soak(kind: str, tmp_path: Path, row: Any, record_property: Any) -> None:
    """Load with faults at random: nothing is lost, and memory, descriptors, tasks and connections
    come back to what they were."""
    needs("redis" not in kind or binary() is not None, "redis-server")
    chance = random.Random(MINUTES)
    cast = Cast(servers=2, workers=2, serving_only=True, mortal=True)
    async with Scene.opened(tmp_path, kind, cast) as scene:
        await warm_up(scene, chance)
        before = await settled(scene)
        strikes, until = 0, time.monotonic() + (MINUTES * 60 / len(KINDS) or 12)
        async with scene.talking(most=20) as verdict:
            while time.monotonic() < until:
                await strike(scene, chance)
                strikes += 1
                await asyncio.sleep(chance.uniform(0.2, 2.0))
        after = await settled(scene, before)
    row("soak", kind, verdict, strikes)
    record_property("before", str(before))
    record_property("after", str(after))
    assert verdict.clean, verdict
    assert all(map(within, after, before)), (before, after)
