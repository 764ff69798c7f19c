"""What the tests share: a server in the test's own loop, and real servers as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from fault_table import pytest_terminal_summary, row  # noqa: F401
from postgres_servers import PostgresServer
from redis_servers import PATIENT, RedisCluster, RedisServer, binary
from terminals import Terminal
from turnwise import Bot, Runtime
from turnwise.server.app import create_app
from turnwise.settings import Settings

# The tests do not depend on how they are started, nor on what is in the environment.
_THEIRS = re.compile(
    r"(AZURE_)?OPENAI_|TURNWISE_|OTEL_|AWS_|PROMETHEUS_|HYPOTHESIS_|PYTHONIOENCODING$|PYTHONWARNINGS$"
    r"|(ALL|HTTP|HTTPS|NO)_PROXY$|(FORCE|NO)_COLOR$|CLICOLOR|COLUMNS$|LINES$",
    re.I,
)
for name in filter(_THEIRS.match, list(os.environ)):
    del os.environ[name]
if not os.access(os.path.expanduser("~"), os.W_OK):
    os.environ["HOME"] = tempfile.mkdtemp(prefix="turnwise-home-")  # browsers write there
os.umask(0o022)
signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent


_lane = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
_ports = iter(random.sample(range(10_000 + _lane, 20_000, 8), 1250))


def free_port() -> int:
    """A port that is nobody's, with the one 10,000 above, which a node of a Cluster uses as well.

    Both are below those that Linux gives to connections, so none takes it while its server is
    down. None comes twice; two processes that run tests side by side draw from different ones.
    """
    for port in _ports:
        with contextlib.suppress(OSError), socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", port))
            high.bind(("127.0.0.1", port + 10_000))
            return port
    raise AssertionError("no port is free")


def needs(found: bool, what: str) -> None:
    """Skip at home when something is missing, fail in CI."""
    if found:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


class Talker:
    """An HTTP client of one session."""

    def __init__(self, client: httpx.AsyncClient, made: dict[str, Any]) -> None:
        self.client = client
        self.id: str = made["id"]
        self.token: str = made["token"]
        self.path = f"/sessions/{self.id}"

    @classmethod
    async def make(cls, client: httpx.AsyncClient, **body: Any) -> Talker:
        response = await client.post("/sessions", json=body)
        assert response.status_code == 201, response.text
        return cls(client, response.json())

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def call(self, method: str, path: str = "", **more: Any) -> httpx.Response:
        headers = {**self.auth, **more.pop("headers", {})}
        return await self.client.request(method, self.path + path, headers=headers, **more)

    async def say(self, text: str, wait: int | None = 20, **headers: str) -> dict[str, Any]:
        """Say something; the turn, finished if `wait` is given."""
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        response = await self.call("POST", "/turns", json={"text": text}, headers=headers)
        assert response.status_code in (200, 202), response.text
        turn: dict[str, Any] = response.json()
        return turn

    async def history(self) -> list[str]:
        response = await self.call("GET", "/messages", params={"limit": 500})
        return [message["text"] for message in response.json()["messages"]]

    async def events(self, after: int | str = 0, **params: Any) -> list[dict[str, Any]]:
        """The log from a cursor, by one long poll."""
        response = await self.call(
            "GET",
            "/events",
            params={"after": after, "limit": 500, **params},
            headers={"Accept": "application/json"},
        )
        assert response.status_code == 200, response.text
        events: list[dict[str, Any]] = response.json()["events"]
        return events


@dataclass
class Door:
    """A server in this loop: its address, a client, its runtime."""

    url: str
    client: httpx.AsyncClient
    runtime: Runtime

    async def session(self, **body: Any) -> Talker:
        return await Talker.make(self.client, **body)


Opener = Callable[..., contextlib.AbstractAsyncContextManager[Door]]


@contextlib.asynccontextmanager
async def serving(app: Any, **given: Any) -> AsyncIterator[str]:
    """An application served in this loop; yields its address."""
    given = {"log_level": "critical", "timeout_graceful_shutdown": 1, **given}
    server = uvicorn.Server(uvicorn.Config(app, timeout_keep_alive=75, **given))
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server._serve([listening]))
        while not server.started:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def _open_door(store: str, bot: Bot, *, app: Any = None, **given: Any) -> AsyncIterator[Door]:
    settings = Settings(_env_file=None, grace=1.0, **given)
    runtime = Runtime(bot, store, settings=settings)
    application = create_app(runtime) if app is None else app(runtime)
    config: dict[str, Any] = {
        "log_level": "warning",
        "lifespan": "on",
        "ws_per_message_deflate": False,  # as `turnwise serve` does
        "timeout_graceful_shutdown": 3,
    }
    async with serving(application, **config) as url:
        try:
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                yield Door(url, client, runtime)
        finally:
            runtime.retire()


def fresh_store(kind: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty store: sqlite, postgres, redis or redis-cluster."""
    if kind == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path') / 'door.db'}"
    if kind == "postgres":
        server = request.getfixturevalue("postgres_server")
        return f"{server.url}?schema=t{secrets.token_hex(6)}"
    server = request.getfixturevalue("redis_cluster" if kind == "redis-cluster" else "redis_server")
    return f"{server.url}?prefix={secrets.token_hex(6)}"


STORES = ("sqlite", "redis", "redis-cluster", "postgres")


def on(*kinds: str) -> pytest.MarkDecorator:
    """A slow story is told on these stores, and by `make stores` on all of them."""
    chosen = STORES if os.environ.get("STORES") == "all" else kinds
    return pytest.mark.parametrize("store_url", chosen, indirect=True)


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest) -> str:
    """A fresh store of each kind."""
    return fresh_store(request.param, request)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A fresh SQLite file."""
    return f"sqlite:///{tmp_path / 'door.db'}"


@pytest.fixture
def open_door(store_url: str) -> Opener:
    """`async with open_door(bot) as door`: a whole server on a fresh store of each kind."""
    return lambda bot, **given: _open_door(store_url, bot, **given)


@pytest.fixture
def open_sqlite_door(sqlite_url: str) -> Opener:
    """The same on SQLite alone, for what has nothing to do with the store."""
    return lambda bot, **given: _open_door(sqlite_url, bot, **given)


class Process:
    """`turnwise serve` as a process of its own, that can be killed and started again."""

    def __init__(
        self,
        folder: Path,
        bot: str | None,
        *flags: str,
        store: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._environment = environment or {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = store or f"sqlite:///{folder / 'p.db'}"
        self._command = [sys.executable, "-m", "turnwise", "serve", *([bot] if bot else [])]
        self._command += ["--port", str(self.port), "--store", self.store, *flags]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._spawn()
        self._await_ready()

    def _spawn(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(HERE), **self._environment}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _await_ready(self) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("the server did not become ready")

    def upgrade(self) -> None:
        """When it is started again, it runs the code that is tested here."""
        self._environment = {**self._environment, "PYTHONPATH": str(HERE)}

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, all of its processes at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self, patience: float = 15.0) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(patience)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=30)


class WorkerProcess(Process):
    """`turnwise work` as a process of its own."""

    def __init__(
        self,
        folder: Path,
        bot: str,
        *flags: str,
        store: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, bot, *flags, store=store, environment=environment)
        self._command = [sys.executable, "-m", "turnwise", "work", bot, "--store", store, *flags]

    def _await_ready(self) -> None:
        """It takes turns when it can: nobody has to wait for it."""


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Processes that are killed after the test."""
    started: list[Process] = []
    yield started
    for process in started:
        if process.running:
            process.kill()


@pytest.fixture
def serve(tmp_path: Path, processes: list[Process]) -> Callable[..., Process]:
    """`serve("bots:echo", "--workers", "4")`: a started Process, stopped after the test."""

    def begin(bot: str | None = None, *flags: str, store: str | None = None) -> Process:
        process = Process(tmp_path, bot, *flags, store=store)
        processes.append(process)
        process.start()
        return process

    return begin


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that all tests share; each takes a prefix of its own."""
    needs(binary() is not None, "redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"), free_port(), *PATIENT)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that all tests share; each takes a schema of its own."""
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A Cluster of three masters that all tests share."""
    needs(binary() is not None, "redis-server")
    folder, ports = tmp_path_factory.mktemp("cluster"), [free_port() for _ in range(3)]
    cluster = RedisCluster(folder, ports, *PATIENT)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, to be killed and frozen."""
    server = RedisServer(tmp_path / "own", free_port(), "--appendfsync", "always")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def open_away(own_server: RedisServer) -> Opener:
    """`open_door` on that Redis."""
    return lambda bot, **given: _open_door(own_server.url, bot, **given)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def begin(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments, cwd=tmp_path))
        return opened[-1]

    yield begin
    for one in opened:
        try:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
