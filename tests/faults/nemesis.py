"""The faults: what is done to the processes, the store and the lines between them.

Each is a name, the stores it applies to, the cast it needs, and one strike of it.
"""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from scene import EARLIER, FIRST, LEASE, Cast, Scene

from conftest import HERE, Process

ALL = ("sqlite", "redis", "redis-cluster", "postgres")
JUMPING = {"PYTHONPATH": f"{HERE}/faults/clock:{HERE}"}
Strike = Callable[[Scene], Awaitable[None]]
chance = random.Random(7)


@dataclass
class Fault:
    """One way in which things go wrong. The short pass takes only some, on the first of `stores`:
    not those that have a `like`, another fault or a test that is much the same."""

    name: str
    strike: Strike
    stores: tuple[str, ...]
    cast: Cast
    like: str


FAULTS: list[Fault] = []


def fault(*stores: str, like: str = "", **cast: Any) -> Callable[[Strike], Strike]:
    """Keeps what a function does as a fault, by the function's name."""

    def keep(strike: Strike) -> Strike:
        name = strike.__name__.replace("_", " ")
        for word in ("Redis", "Cluster", "SIGTERM", "PostgreSQL"):
            name = name.replace(word.lower(), word)
        FAULTS.append(Fault(name, strike, stores or ALL, Cast(**cast), like))
        return strike

    return keep


def apart(**more: Any) -> dict[str, Any]:
    """A cast in which some only serve and others only answer."""
    return {"servers": 2, "workers": 2, "serving_only": True, **more}


# Processes


async def _ordered(scene: Scene, order: str, deaths: int = 1) -> None:
    """Somebody's next message says so; wait until it has killed."""
    before = scene.restarts
    scene.orders.append(order)
    await scene.until(lambda: scene.restarts >= before + deaths)


@fault(
    "redis",
    "sqlite",
    "redis-cluster",
    "postgres",
    like="worker_killed_after_some_deltas",
    **apart(),
)
async def worker_killed_after_the_claim(scene: Scene) -> None:
    await _ordered(scene, "after-claim")


@fault(**apart())
async def worker_killed_after_some_deltas(scene: Scene) -> None:
    await _ordered(scene, "after-deltas")


@fault(
    "redis-cluster", "sqlite", "redis", "postgres", like="worker_killed_after_the_commit", **apart()
)
async def worker_killed_before_the_commit(scene: Scene) -> None:
    await _ordered(scene, "before-finish")


@fault("redis-cluster", "sqlite", "redis", "postgres", **apart())
async def worker_killed_after_the_commit(scene: Scene) -> None:
    await _ordered(scene, "after-finish")


@fault("redis", "sqlite", "redis-cluster", "postgres", **apart())
async def worker_killed_after_it_remembered(scene: Scene) -> None:
    await _ordered(scene, "after-memory")


@fault("postgres", "sqlite", "redis", "redis-cluster", **apart())
async def worker_killed_as_it_asks(scene: Scene) -> None:
    await _ordered(scene, "asking")


async def _web_dies(scene: Scene, point: str) -> None:
    before = scene.restarts
    (chance.choice(scene.servers).folder / "die-at").write_text(point)
    await scene.until(lambda: scene.restarts > before)


@fault(like="server_killed_before_the_acknowledgement", **apart(mortal=True))
async def server_killed_before_the_commit(scene: Scene) -> None:
    await _web_dies(scene, "asked")


@fault("redis", "sqlite", "redis-cluster", "postgres", **apart(mortal=True))
async def server_killed_before_the_acknowledgement(scene: Scene) -> None:
    await _web_dies(scene, "answering")


@fault(like="any_process_killed", **apart(mortal=True))
async def server_killed_in_mid_stream(scene: Scene) -> None:
    await _web_dies(scene, "streaming")


async def _anybody_killed(scene: Scene) -> None:
    before = scene.restarts
    chance.choice(scene.servers).kill()
    await scene.until(lambda: scene.restarts > before)


@fault()
async def any_process_killed(scene: Scene) -> None:
    await _anybody_killed(scene)


# People with other people's clients, while processes die


@fault("sqlite", "redis", "redis-cluster", "postgres", foreign=True)
async def killed_while_other_clients_listen(scene: Scene) -> None:
    await _anybody_killed(scene)


@fault("postgres", "sqlite", "redis", "redis-cluster", **apart(foreign=True))
async def worker_killed_while_other_clients_listen(scene: Scene) -> None:
    await _ordered(scene, "after-deltas")


# People who change their minds, while processes die


@fault("postgres", "sqlite", "redis", "redis-cluster", deeds=("edit", "again", "interrupt"))
async def killed_while_people_take_back(scene: Scene) -> None:
    await _anybody_killed(scene)


@fault(like="killed_while_people_take_back", deeds=("branch", "edit"))
async def killed_while_people_branch(scene: Scene) -> None:
    await _anybody_killed(scene)


@fault("redis", "sqlite", "redis-cluster", "postgres", deeds=("pieces", "change"))
async def killed_while_messages_merge(scene: Scene) -> None:
    await _anybody_killed(scene)


@fault("sqlite", "redis", "redis-cluster", "postgres", deeds=("timer",))
async def nobody_there_when_timers_fire(scene: Scene) -> None:
    scene.resting |= set(scene.servers)
    for process in scene.servers:
        process.kill()
    await asyncio.sleep(1.0)
    scene.resting.clear()
    await scene.until(lambda: all(process.running for process in scene.servers))


@fault(like="nobody_there_when_timers_fire", deeds=("branch", "timer"), owner="one")
async def killed_while_one_owner_has_all_sessions(scene: Scene) -> None:
    await _anybody_killed(scene)


@fault("redis", "sqlite", "redis-cluster", "postgres", **apart())
async def worker_stopped_past_its_lease(scene: Scene) -> None:
    worker = chance.choice(scene.workers)
    worker.signal(signal.SIGSTOP)
    await asyncio.sleep(1.4 * LEASE)
    worker.signal(signal.SIGCONT)


@fault(**apart())
async def handler_holds_up_the_loop_past_its_lease(scene: Scene) -> None:
    scene.orders.append("block")
    await scene.until(lambda: not scene.orders)
    await asyncio.sleep(1.7 * LEASE)


async def _asked_to_stop(scene: Scene, process: Process, *pauses: float) -> None:
    before = scene.restarts
    for pause in pauses:
        process.signal(signal.SIGTERM)
        await asyncio.sleep(pause)
    await scene.until(lambda: scene.restarts > before)


@fault(like="sigterm_twice")
async def sigterm_in_mid_turn(scene: Scene) -> None:
    await _asked_to_stop(scene, chance.choice(scene.servers), 0.0)


@fault("redis", "sqlite", "redis-cluster", "postgres")
async def sigterm_twice(scene: Scene) -> None:
    await _asked_to_stop(scene, chance.choice(scene.servers), 0.05, 0.0)


@fault(**apart(bot="bots:fragile"))
async def poison_message(scene: Scene) -> None:
    await _ordered(scene, "poison", deaths=3)


@fault(**apart(workers=1))
async def no_worker_for_a_while(scene: Scene) -> None:
    (worker,) = scene.workers
    scene.resting.add(worker)
    worker.kill()
    await asyncio.sleep(1.5)
    scene.resting.discard(worker)
    await scene.until(lambda: worker.running)


@fault("redis", "sqlite", "redis-cluster", "postgres", newer=True)
async def old_and_new_version_restarted_in_turn(scene: Scene) -> None:
    for process in scene.servers:
        await _asked_to_stop(scene, process, 0.0)
        await asyncio.sleep(0.5)


@fault(
    "postgres", "redis", "redis-cluster", like="old_and_new_version_restarted_in_turn",
    **apart(older=EARLIER, bot="plain_bots:plain"),
)  # fmt: skip
async def an_earlier_version_replaced_one_by_one(scene: Scene) -> None:
    """Servers first, which read what earlier workers write. Later strikes restart all."""
    for process in (*scene.servers, *scene.workers):
        process.upgrade()
        await _asked_to_stop(scene, process, 0.0)
        await asyncio.sleep(0.7)


@fault("sqlite", "redis", "postgres", environment=JUMPING)
async def wall_clock_jumps(scene: Scene) -> None:
    for ahead in (3600.0, -3600.0, 5.0, 0.0):
        scene.clock.write_text(str(ahead))
        await asyncio.sleep(0.4)


# SQLite


@fault("sqlite", like="test_what_was_open_is_answered", older=FIRST, bot="plain_bots:plain")
async def a_file_of_the_first_edition_upgraded(scene: Scene) -> None:
    """All of its processes end in mid-work. Those of this version are started at once, and one of
    them is killed on its way. Later strikes are of the new ones alone."""
    scene.resting |= set(scene.servers)
    for process in scene.servers:
        process.kill()
        process.upgrade()
    starting = [asyncio.create_task(asyncio.to_thread(one.start)) for one in scene.servers]
    await asyncio.sleep(chance.uniform(0.3, 1.5))
    scene.servers[0].kill()
    await asyncio.gather(*starting, return_exceptions=True)
    scene.resting.clear()
    await scene.until(lambda: all(process.running for process in scene.servers))


@fault("sqlite")
async def another_process_holds_the_write_lock(scene: Scene) -> None:
    other = sqlite3.connect(scene.file, isolation_level=None, timeout=5.0)
    other.execute("BEGIN IMMEDIATE")
    await asyncio.sleep(chance.uniform(0.2, 2.5))
    other.execute("ROLLBACK")
    other.close()


@fault("sqlite")
async def disk_full(scene: Scene) -> None:
    """No process may write a byte to any file."""
    for limit in (0, resource.RLIM_INFINITY):
        for process in scene.servers:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        await asyncio.sleep(1.0)


# Redis


@fault("redis", like="test_a_redis_that_restarts")
async def redis_killed_and_restarted(scene: Scene) -> None:
    scene.redis.kill()
    await asyncio.sleep(chance.uniform(0.1, 2.0))
    await asyncio.to_thread(scene.redis.start)


@fault("redis", like="test_a_frozen_redis")
async def redis_frozen(scene: Scene) -> None:
    scene.redis.signal(signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(0.2, 1.5 * LEASE))
    scene.redis.signal(signal.SIGCONT)


async def _forgotten(scene: Scene) -> None:
    """What was acknowledged so far may be lost, also where the word is still on its way."""
    await asyncio.sleep(1.0)
    scene.rolled_back.append(time.monotonic())


@fault("redis")
async def redis_restarted_empty(scene: Scene) -> None:
    scene.redis.kill()
    await _forgotten(scene)
    shutil.rmtree(scene.redis.folder)
    await asyncio.to_thread(scene.redis.start)


@fault("redis")
async def redis_append_only_file_cut(scene: Scene) -> None:
    scene.redis.kill()
    await _forgotten(scene)
    file = max(scene.redis.folder.rglob("*.aof"), key=lambda path: path.stat().st_mtime)
    size = file.stat().st_size
    with file.open("r+b") as log:
        log.truncate(max(0, size - chance.randrange(20_000)))
    await asyncio.to_thread(scene.redis.start)
    with scene.redis.client() as client:
        # Half a transaction may be at the end of the file now, which Redis skipped: written behind
        # it, the next one would be read as its other half.
        client.bgrewriteaof()
        await scene.until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])


@fault("redis-cluster", like="test_a_cluster_master_dies", replicas=True)
async def a_master_of_the_cluster_killed(scene: Scene) -> None:
    node = chance.choice(scene.cluster.nodes)
    node.kill()
    await asyncio.sleep(chance.uniform(0.1, 3.0))
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(scene.cluster.settle)


@fault("redis-cluster", like="test_a_cluster_master_freezes", replicas=True)
async def a_master_of_the_cluster_frozen(scene: Scene) -> None:
    node = chance.choice(scene.cluster.nodes)
    node.signal(signal.SIGSTOP)
    await asyncio.sleep(chance.uniform(0.5, 4.0))
    node.signal(signal.SIGCONT)
    await asyncio.to_thread(scene.cluster.settle)


@fault("redis-cluster", "redis", like="test_flushed_scripts_are_sent_again")
async def redis_scripts_flushed(scene: Scene) -> None:
    for node in scene.nodes:
        with node.client() as client:
            client.script_flush()


@fault("redis", "redis-cluster", like="test_a_full_redis_keeps_what_it_has")
async def redis_memory_full(scene: Scene) -> None:
    for limit in ("1mb", "0"):
        for node in scene.nodes:
            with node.client() as client:
                client.config_set("maxmemory", limit)
        await asyncio.sleep(1.0)


@fault("redis-cluster", "redis")
async def redis_clients_killed_in_a_loop(scene: Scene) -> None:
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        for node in scene.nodes:
            with node.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(chance.uniform(0.02, 0.15))


@fault("redis", proxied=True)
async def answers_of_redis_lost_on_the_way(scene: Scene) -> None:
    scene.proxy.cut = chance.randrange(1, 12)
    await scene.until(lambda: scene.proxy.cut == 0)


@fault("redis", proxied=True, **apart())
async def wake_ups_lost(scene: Scene) -> None:
    scene.proxy.deaf = True
    await asyncio.sleep(1.0)
    scene.proxy.deaf = False


# PostgreSQL


@fault("postgres")
async def postgresql_killed_and_restarted(scene: Scene) -> None:
    scene.postgres.kill()
    await asyncio.sleep(chance.uniform(0.1, 2.0))
    await asyncio.to_thread(scene.postgres.start)


@fault("postgres")
async def postgresql_frozen(scene: Scene) -> None:
    scene.postgres.freeze()
    await asyncio.sleep(chance.uniform(0.2, 1.5 * LEASE))
    scene.postgres.thaw()


@fault("postgres", proxied=True)
async def answers_of_postgresql_lost_on_the_way(scene: Scene) -> None:
    scene.proxy.cut = chance.randrange(1, 12)
    await scene.until(lambda: scene.proxy.cut == 0)


@fault("postgres")
async def postgresql_connections_cut_in_a_loop(scene: Scene) -> None:
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        await scene.postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'turnwise'"
        )
        await asyncio.sleep(chance.uniform(0.02, 0.15))


@fault("postgres", standby=True)
async def postgresql_standby_promoted(scene: Scene) -> None:
    await scene.pair.fail_over()


@fault("postgres", small_disk=True)
async def postgresql_disk_full(scene: Scene) -> None:
    await asyncio.to_thread(scene.postgres.fill)
    await asyncio.sleep(chance.uniform(0.5, 2.0))
    await asyncio.to_thread(scene.postgres.make_room)
