"""Diagnostics: the version, persistence and layout of a Redis, and their durability."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Connection
from redis.exceptions import ResponseError

from turnwise.stores.redis.routes import Routes

OLDEST = (6, 2)


@dataclass
class Found:
    """The result of examining a Redis. `facts` are for `turnwise check`."""

    version: str
    cluster: bool
    sharded: bool
    durability: str
    facts: dict[str, str]
    warnings: list[str] = field(default_factory=list)


async def look(routes: Routes) -> Found:
    """Ask the server, and of a Cluster each master. Raises what redis-py raises."""
    connection = await routes.connect()
    try:
        info = await _info(connection)
        config = await _config(connection)
        skew = await _skew(connection)
    finally:
        await connection.disconnect()
    cluster = info.get("cluster_enabled") == "1"
    valkey = info.get("valkey_version")
    number = valkey or info.get("redis_version", "0")
    version = f"{'Valkey' if valkey else 'Redis'} {number}{' Cluster' if cluster else ''}"
    # Valkey is a fork of Redis 7.2, and reports its own version.
    parts = tuple(int(part) for part in info.get("redis_version", "0.0").split(".")[:2])
    found = Found(
        version=version,
        cluster=cluster,
        sharded=cluster and parts >= (7, 0),
        durability=_durability(info, config),
        facts={
            "store": version,
            "persistence": _persistence(info, config),
            "eviction": config.get("maxmemory-policy") or info.get("maxmemory_policy", "unknown"),
            "memory": f"{info.get('used_memory_human', 'unknown')} of {_limit(info)}",
            "clock": f"{skew * 1000:+.0f} ms from this machine's",
        },
    )
    found.warnings = _warnings(found, parts, skew)
    if cluster:
        found.facts["cluster"] = await _layout(routes)
    else:
        found.facts["replicas"] = info.get("connected_slaves", "0")
    if found.warnings:
        found.facts["warning"] = "\n".join(found.warnings)
    return found


async def _ask(connection: Connection, *command: Any) -> Any:
    await connection.send_command(*command)
    return await connection.read_response(timeout=3.0)


async def _info(connection: Connection) -> dict[str, str]:
    """The answer to INFO; if the user has no permission for it, the answer to HELLO."""
    try:
        text = (await _ask(connection, "INFO")).decode(errors="replace")
    except ResponseError:
        told = await _ask(connection, "HELLO")
        words = [word.decode() if isinstance(word, bytes) else str(word) for word in told]
        hello = dict(zip(words[::2], words[1::2], strict=False))
        cluster = "1" if hello.get("mode") == "cluster" else "0"
        return {"redis_version": hello.get("version", "0"), "cluster_enabled": cluster}
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


async def _config(connection: Connection) -> dict[str, str]:
    """The relevant settings; empty if the server does not reveal them."""
    config = {}
    for name in ("appendonly", "appendfsync", "save", "maxmemory-policy"):
        try:
            found = await _ask(connection, "CONFIG", "GET", name)
        except ResponseError:  # managed services forbid it
            return {}
        config[name] = found[1].decode() if len(found) > 1 else ""
    return config


async def _skew(connection: Connection) -> float:
    """Seconds that the server's clock is ahead of ours."""
    before = time.time()
    seconds, micros = await _ask(connection, "TIME")
    return float(int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2)


def _persistence(info: dict[str, str], config: dict[str, str]) -> str:
    if info.get("aof_enabled") == "1":
        return f"append-only file, fsync {config.get('appendfsync', 'unknown')}"
    if not config and "aof_enabled" not in info:
        return "unknown: this user may not ask"
    return f"snapshots ({config['save']})" if config.get("save") else "none"


def _durability(info: dict[str, str], config: dict[str, str]) -> str:
    """How durable acknowledged data is, as a text."""
    cluster = " A failover may lose what its replica did not have yet."
    more = cluster if info.get("cluster_enabled") == "1" else ""
    if info.get("aof_enabled") == "1":
        fsync = config.get("appendfsync")
        if fsync == "always":
            return f"AOF, fsync always: what was acknowledged survives a power cut.{more}"
        if fsync == "no":
            return (
                "AOF, fsync left to the system: what was acknowledged survives the death of any "
                f"process; a power cut may lose half a minute.{more}"
            )
        return (
            "AOF, fsync every second: what was acknowledged survives the death of any process; a "
            f"power cut may lose the last second.{more}"
        )
    if not config and "aof_enabled" not in info:
        return (
            "This user may not ask for Redis's settings: what was acknowledged survives the death "
            f"of our processes; what Redis itself may lose is up to its persistence.{more}"
        )
    if config.get("save"):
        return (
            "Snapshots only: what was acknowledged survives the death of our processes; when Redis "
            f"itself dies, all since the last snapshot is lost.{more}"
        )
    return (
        "No persistence: what was acknowledged survives the death of our processes; when Redis "
        f"itself dies, everything is lost.{more}"
    )


def _warnings(found: Found, parts: tuple[int, ...], skew: float) -> list[str]:
    warnings = []
    if parts < OLDEST:
        warnings.append(f"{found.version} is older than Redis 6.2, which Turnwise needs.")
    policy = found.facts["eviction"]
    if policy not in ("noeviction", "unknown"):
        warnings.append(
            f"Redis may evict sessions when its memory is full (maxmemory-policy {policy}): set "
            "maxmemory-policy noeviction."
        )
    if "AOF" not in found.durability and "may not ask" not in found.durability:
        warnings.append(f"{found.durability} Set appendonly yes.")
    if abs(skew) > 1.0:
        warnings.append(f"Redis's clock is {skew:+.1f} s from this machine's.")
    return warnings


def _limit(info: dict[str, str]) -> str:
    return "no limit" if info.get("maxmemory") == "0" else info.get("maxmemory_human", "unknown")


async def _layout(routes: Routes) -> str:
    """The masters of a Cluster and the slots of each."""
    lines = []
    for (host, port), slots, replicas in await routes.layout():
        lines.append(f"{host}:{port} has {slots} slots, {replicas} replicas")
    return "\n".join(lines)
