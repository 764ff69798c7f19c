"""Turnwise in other people's processes: their servers, their errors, their tools."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Body, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import turnwise
from conftest import HERE, Opener, Talker, free_port, fresh_store, serving
from turnwise import Bot, Runtime, StreamEnded, Turn
from turnwise.channels.sse import EventStream
from turnwise.errors import ConfigurationError
from turnwise.server.app import create_app
from turnwise.settings import Settings

SERVERS = {
    "gunicorn": "gunicorn -w 2 -k uvicorn_worker.UvicornWorker -b 127.0.0.1:{port} hosted:app",
    "gunicorn-preload": (
        "gunicorn --preload -w 3 -k uvicorn_worker.UvicornWorker -b 127.0.0.1:{port} hosted:app"
    ),
    "granian": "granian --interface asgi --workers 2 --host 127.0.0.1 --port {port} hosted:app",
    "hypercorn": "hypercorn -w 2 -b 127.0.0.1:{port} hosted:app",
    "uvicorn": "uvicorn --workers 2 --port {port} hosted:app",
}


@contextlib.contextmanager
def hosted(server: str, folder: Path, store: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The host application of hosted.py under a server; its address and its process."""
    port = free_port()
    name, *arguments = SERVERS[server].format(port=port).split()
    environment = {**os.environ, "PYTHONPATH": str(HERE), "TURNWISE_STORE": store}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", name, *arguments],
            cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/who").status_code == 200:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        yield url, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_under_servers_that_people_use(
    server: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Several workers of each server share every session: what one accepts another streams, soon
    and in order, and Stop reaches whoever runs the turn."""
    if kind == "redis" and server not in ("gunicorn", "gunicorn-preload"):
        pytest.skip("what differs is the way to fork")
    store = fresh_store(kind, request)
    with hosted(server, tmp_path, store) as (url, _):
        limits = httpx.Limits(max_keepalive_connections=0)  # a connection a request: any worker
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
            workers: set[int] = set()
            async with asyncio.timeout(20):
                while len(workers) < 2:
                    workers.add((await client.get("/who")).json())
            await asyncio.gather(*(converse(client, n) for n in range(6)))
            client.base_url = httpx.URL(f"{url}/ai")
            await asyncio.gather(*(stop(client) for _ in range(4)))


async def converse(client: httpx.AsyncClient, n: int) -> None:
    for i in range(4):
        said = (await client.post("/chat", params={"user": str(n), "text": f"m{i}"})).json()
        assert said.startswith(f"m{i} by ")


async def stop(client: httpx.AsyncClient) -> None:
    """A long answer is followed by one request and stopped by another, each at any worker."""
    talker = await Talker.make(client)
    await talker.say("600", None)
    await talker.events(2, wait=10)
    began = time.monotonic()
    cancelled = (await talker.call("POST", "/turns/1/cancel")).json()
    assert cancelled["status"] == "cancelled"
    ended = await talker.events(wait=5)
    assert [e["id"] for e in ended] == list(range(1, len(ended) + 1))
    assert ended[-1]["type"] == "turn.cancelled"
    assert time.monotonic() - began < 1.9  # without a hint from the other process it takes longer


def test_a_fork_has_an_identity_of_its_own() -> None:
    """Operations, message ids and store numbers differ between a process and its children."""
    program = """
import json, os
from turnwise.conversation import new_message_id
from turnwise.identity import operation

def some():
    return [operation(), new_message_id()[19:], operation()]

pipes = []
for _ in range(3):
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.write(theirs, json.dumps(some()).encode())
        os._exit(0)
    pipes.append(ours)
drawn = [name for pipe in pipes for name in json.loads(os.read(pipe, 10_000))] + some()
assert len(set(drawn)) == len(drawn), drawn
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr


async def test_a_runtime_in_a_forked_child_says_so(sqlite_url: str) -> None:
    """What was started before a fork cannot be used behind it, and the error names the reason."""
    async with Runtime(Bot(lambda turn: "ok"), sqlite_url) as runtime:
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            words = ""
            try:
                asyncio.events._set_running_loop(None)
                asyncio.run(runtime.ask("s", "hi"))
            except ConfigurationError as error:
                words = error.message
            os.write(writing, words.encode() or b"no error")
            os._exit(0)
        os.waitpid(child, 0)  # noqa: ASYNC222 it is done by then
        assert "after the fork" in os.read(reading, 1000).decode()
        assert (await runtime.ask("s", "hi")).text == "ok"


async def test_calls_from_another_loop_cost_nothing(sqlite_url: str) -> None:
    """`asyncio.run(runtime.ask(...))` in a sync endpoint is refused in words that help, however
    often, and the process goes on answering everybody."""
    settings = Settings(_env_file=None, concurrency=10)
    async with Runtime(Bot(lambda turn: "ok"), sqlite_url, settings=settings) as runtime:

        def call() -> str:
            with pytest.raises(ConfigurationError, match="run_coroutine_threadsafe") as caught:
                asyncio.run(runtime.ask("s", "hi"))
            return caught.value.message

        gateway = runtime.gateway
        for _ in range(20):
            await asyncio.to_thread(call)

            def below() -> None:  # the gateway itself, which does not know its runtime
                with pytest.raises(ConfigurationError):
                    asyncio.run(gateway.submit("s", "hi", create=True))

            await asyncio.to_thread(below)
        loop = asyncio.get_running_loop()

        def properly() -> str:
            asked = asyncio.run_coroutine_threadsafe(runtime.ask("s", "hi"), loop)
            return asked.result(20).text

        assert await asyncio.to_thread(properly) == "ok"
        many = [runtime.ask(f"s{i}", "hi", timeout=20) for i in range(30)]
        assert {reply.text for reply in await asyncio.gather(*many)} == {"ok"}


async def test_a_stream_that_ends_early_raises(sqlite_url: str) -> None:
    """When the process stops in mid-answer, neither `stream`, `stream_text` nor `ask` looks like
    a whole reply."""
    runtime = Runtime(Bot(_slow), sqlite_url, settings=Settings(_env_file=None, grace=0.0))
    await runtime.start()
    heard: list[str] = []

    async def follow(work: Any) -> None:
        async for piece in work:
            heard.append(str(piece))

    waiting = [
        asyncio.ensure_future(follow(runtime.stream("a", "hi"))),
        asyncio.ensure_future(follow(runtime.stream_text("b", "hi"))),
        asyncio.ensure_future(runtime.ask("c", "hi")),
    ]
    while len(heard) < 4:
        await asyncio.sleep(0.01)
    await runtime.stop()
    for ended in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(ended, StreamEnded), ended


async def _slow(turn: Turn) -> AsyncIterator[str]:
    for i in range(1000):
        yield f"{i} "
        await asyncio.sleep(0.01)


async def test_a_runtime_that_is_started_twice(sqlite_url: str) -> None:
    """At once or one after another: one works, the other says that it is running already, and
    leaving one that never ran is no error."""
    runtime = Runtime(Bot(lambda turn: "ok"), sqlite_url)
    both = await asyncio.gather(runtime.start(), runtime.start(), return_exceptions=True)
    assert [type(one) for one in both if one is not None] == [ConfigurationError]
    assert (await runtime.ask("s", "hi")).text == "ok"
    await runtime.stop()
    await runtime.stop()
    async with runtime:
        assert (await runtime.ask("s", "hi")).text == "ok"


# The host's errors


class Mine(Exception):
    """An exception of the host's own."""


def host_of(runtime: Runtime, dependency: Any = None, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=runtime.lifespan)

    @app.exception_handler(Mine)
    async def mine(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"mine": str(error)}, 418)

    dependencies = [Depends(dependency)] if dependency else []
    app.include_router(turnwise.router(runtime, **options), prefix="/ai", dependencies=dependencies)
    return app


@contextlib.asynccontextmanager
async def host(
    store: str, dependency: Any = None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    runtime = Runtime(Bot(lambda turn: turn.text), store, settings=Settings(_env_file=None))
    app = host_of(runtime, dependency, **options)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        yield client


REFUSALS: dict[str, tuple[Exception, int, dict[str, str], Any]] = {
    "basic": (
        HTTPException(401, "who?", {"WWW-Authenticate": "Basic realm=x"}),
        401, {"www-authenticate": "Basic realm=x"}, {"detail": "who?"},
    ),
    "busy": (
        HTTPException(429, "later", {"Retry-After": "77"}), 429, {"retry-after": "77"},
        {"detail": "later"},
    ),
    "login": (
        HTTPException(307, headers={"Location": "/login"}), 307, {"location": "/login"},
        {"detail": "Temporary Redirect"},
    ),
    "plan": (HTTPException(402, {"plan": "pro"}), 402, {}, {"detail": {"plan": "pro"}}),
    "mine": (Mine("no"), 418, {}, {"mine": "no"}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("by", ["dependency", "authorize"])
async def test_the_hosts_errors_stay_the_hosts(sqlite_url: str, name: str, by: str) -> None:
    """What a dependency or `authorize` raises reaches the host's handlers as it was raised."""
    error, status, headers, body = REFUSALS[name]

    def refuse(*_: Any) -> bool:
        raise error

    async def dependency() -> None:
        raise error

    options = {"authorize": refuse} if by == "authorize" else {}
    async with host(sqlite_url, dependency if by == "dependency" else None, **options) as client:
        for method, path in (("POST", "/ai/sessions"), ("GET", "/ai/sessions/x/messages")):
            answer = await client.request(method, path, json={} if method == "POST" else None)
            assert (answer.status_code, answer.json()) == (status, body)
            assert headers.items() <= dict(answer.headers).items()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HTTPException(401), 4401),
        (HTTPException(403), 4403),
        (HTTPException(429, "later"), 4429),
        (HTTPException(503), 1011),
        (Mine("no"), 1011),
    ],
)
async def test_the_hosts_errors_close_a_websocket(
    sqlite_url: str, error: Exception, code: int
) -> None:
    """With a code that a client can understand, and not as a connection that broke."""

    def refuse(*_: Any) -> bool:
        raise error

    async with host(sqlite_url, authorize=refuse) as client:
        url = str(client.base_url).replace("http", "ws") + "/ai/sessions/x/ws"
        async with connect(url, proxy=None) as socket:
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == code


async def test_a_dependency_refuses_a_websocket(sqlite_url: str) -> None:
    """Before the handshake: the client gets an HTTP status, and the server goes on."""

    async def dependency(socket: WebSocket = None) -> None:  # type: ignore[assignment]
        raise HTTPException(401, "who?")

    runtime = Runtime(Bot(lambda turn: turn.text), sqlite_url, settings=Settings(_env_file=None))
    app = FastAPI(lifespan=runtime.lifespan)
    app.include_router(turnwise.router(runtime), dependencies=[Depends(dependency)])
    async with serving(app) as url:
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            async with connect(url.replace("http", "ws") + "/sessions/x/ws", proxy=None) as socket:
                await socket.recv()
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/openapi.json")).status_code == 200


async def test_errors_of_ours_are_problems_in_a_host(sqlite_url: str) -> None:
    """With `install`, an endpoint of the host's needs no `except`: a bad name is 422, a refusal
    is told, a timeout is 504, and the host's own errors are left alone."""
    bot = Bot()

    @bot.reply
    async def reply(turn: Turn) -> str:
        if turn.text == "refuse":
            raise turnwise.Refusal("not that")
        if turn.text == "fail":
            raise turnwise.TurnError("broken", code="mine", retryable=True)
        if turn.text == "slow":
            await asyncio.sleep(5)
        return turn.text

    runtime = Runtime(bot, sqlite_url, settings=Settings(_env_file=None, grace=0.0))
    app = FastAPI(lifespan=runtime.lifespan)
    turnwise.install(app)

    @app.post("/chat")
    async def chat(user: Annotated[str, Body()], text: Annotated[str, Body()]) -> str:
        return (await runtime.ask(user, text, timeout=0.3)).text

    expected = {
        ("ada", "hi"): (200, None),
        ("ada", ""): (422, "invalid"),
        ("x" * 300, "hi"): (422, "invalid"),
        ("ada", "y" * 200_000): (413, "too_large"),
        ("ada", "refuse"): (422, "refused"),
        ("ada", "fail"): (502, "mine"),
        ("bob", "slow"): (504, "reply_timeout"),
    }
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        for (user, text), (status, code) in expected.items():
            answer = await client.post("/chat", json={"user": user, "text": text})
            assert answer.status_code == status, answer.text
            if code:
                assert answer.json()["code"] == code
                assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.post("/chat")).json()["detail"][0]["type"] == "missing"


# The host's process and tools


async def test_a_library_leaves_the_collector_alone(sqlite_url: str) -> None:
    """A host's lifespan freezes no objects."""
    before = gc.get_freeze_count()
    runtime = Runtime(Bot(lambda turn: "ok"), sqlite_url)
    async with runtime.lifespan(None):
        assert gc.get_freeze_count() == before


async def test_background_tasks_run(sqlite_url: str) -> None:
    """What a dependency of the host's leaves to be done is done, behind streams too."""
    done: list[str] = []

    async def later(request: Request, background: BackgroundTasks) -> None:
        background.add_task(done.append, request.method + request.url.path[:12])

    async with host(sqlite_url, later) as client:
        talker = await Talker.make(client_at(client))
        turn = await talker.say("hi")
        assert turn["reply"]["text"] == "hi"
        headers = {"Accept": "text/event-stream"}
        streamed = await talker.call("POST", "/turns", json={"text": "a"}, headers=headers)
        assert "turn.completed" in streamed.text
        async with asyncio.timeout(5):
            while len(done) < 3:
                await asyncio.sleep(0.01)
    assert done == ["POST/ai/sessions"[:16]] * 3


def client_at(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.base_url = httpx.URL(f"{client.base_url}/ai")
    return client


async def test_a_streams_background_runs_on_our_own_server(open_sqlite_door: Opener) -> None:
    """Also where the stream is sent behind the framework."""
    async with open_sqlite_door(Bot(lambda turn: turn.text)) as door:
        talker = await door.session()
        ran = asyncio.Event()

        reader = door.runtime.gateway.follow(talker.id, 0, turn=1)
        await talker.say("hi")
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            await asyncio.sleep(60)

        stream = EventStream(reader, send_timeout=5.0)
        stream.background = BackgroundTask(ran.set)
        await stream.stream(receive, send)
        assert ran.is_set()
        assert b"turn.completed" in b"".join(m.get("body", b"") for m in sent)


@pytest.mark.parametrize("middleware", [None, "base", "gzip"])
async def test_middleware_of_the_host(sqlite_url: str, middleware: str | None) -> None:
    """Turns, polls and streams work behind what hosts put in front."""
    runtime = Runtime(Bot(lambda turn: turn.text), sqlite_url, settings=Settings(_env_file=None))
    app = host_of(runtime)
    if middleware == "base":

        async def seen(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        app.add_middleware(BaseHTTPMiddleware, dispatch=seen)
    elif middleware == "gzip":
        app.add_middleware(GZipMiddleware)
    async with serving(app) as url, httpx.AsyncClient(base_url=f"{url}/ai", timeout=20) as client:
        talker = await Talker.make(client)
        assert (await talker.say("hi"))["reply"]["text"] == "hi"
        headers = {"Accept": "text/event-stream"}
        streamed = await talker.call("POST", "/turns", json={"text": "a"}, headers=headers)
        assert "turn.completed" in streamed.text


@pytest.mark.parametrize("mounted", [False, True])
async def test_opentelemetry_finds_the_application(sqlite_url: str, mounted: bool) -> None:
    """The FastAPI instrumentor makes a span of each request to our own server, the busiest route
    included, and one in a host's application with its route's name."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    runtime = Runtime(Bot(lambda turn: turn.text), sqlite_url, settings=Settings(_env_file=None))
    app = host_of(runtime) if mounted else create_app(runtime)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    try:
        async with serving(app) as url:
            base = f"{url}/ai" if mounted else url
            async with httpx.AsyncClient(base_url=base, timeout=20) as client:
                talker = await Talker.make(client)
                assert (await talker.say("hi"))["reply"]["text"] == "hi"
    finally:
        FastAPIInstrumentor.uninstrument_app(app)
    spans = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
    served = [span for span in spans if span["kind"] == "SpanKind.SERVER"]
    assert len(served) == 2, [span["name"] for span in spans]
    assert any("sessions" in str(span["attributes"]) for span in served)


@pytest.mark.parametrize(
    ("given", "asked", "location"),
    [
        ({"root_path": "/api"}, "/ai/sessions", "/api/ai/sessions/"),
        ({"root_path": "/api"}, "/api/ai/sessions", "/api/ai/sessions/"),
        ({}, "/ai/sessions", "/ai/sessions/"),
    ],
)
async def test_locations_lead_back(
    sqlite_url: str, given: dict[str, Any], asked: str, location: str
) -> None:
    """`Location` is the address under which the client reaches us, whether or not a proxy has
    taken off its prefix."""
    runtime = Runtime(Bot(lambda turn: turn.text), sqlite_url, settings=Settings(_env_file=None))
    with warnings.catch_warnings(action="ignore"):  # newer versions advise against it
        app = FastAPI(lifespan=runtime.lifespan, **given)
    app.include_router(turnwise.router(runtime), prefix="/ai")
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        made = await client.post(asked, json={})
        assert made.status_code == 201
        assert made.headers["location"] == location + made.json()["id"]
        auth = {"Authorization": f"Bearer {made.json()['token']}"}
        path = f"{asked}/{made.json()['id']}/turns"
        turn = await client.post(path, json={"text": "hi"}, headers=auth)
        assert turn.headers["location"] == f"{location}{made.json()['id']}/turns/1"


async def test_locations_behind_a_mount_and_a_servers_prefix(sqlite_url: str) -> None:
    """As a sub-application, and under `uvicorn --root-path`."""
    runtime = Runtime(Bot(lambda turn: turn.text), sqlite_url, settings=Settings(_env_file=None))
    inner, outer = FastAPI(), FastAPI(lifespan=runtime.lifespan)
    inner.include_router(turnwise.router(runtime))
    outer.mount("/ai", inner)
    async with serving(outer, root_path="/api") as url, httpx.AsyncClient(base_url=url) as client:
        made = await client.post("/ai/sessions", json={})
        assert made.headers["location"] == f"/api/ai/sessions/{made.json()['id']}"


async def test_slashes_at_the_end_lead_nowhere_else(open_sqlite_door: Opener) -> None:
    """`POST /sessions/` with a Host of somebody's choice is no redirect to that host."""
    async with open_sqlite_door(Bot(lambda turn: turn.text)) as door:
        answer = await door.client.post("/sessions/", json={}, headers={"Host": "evil.example"})
        assert answer.status_code == 404
        assert "evil" not in str(answer.headers)
        wrong = await door.client.put("/sessions", json={})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


async def test_streams_that_are_never_sent_do_not_count(sqlite_url: str) -> None:
    """A host's middleware that fails behind the endpoint leaves no open stream."""
    settings = Settings(_env_file=None, max_streams=3)
    runtime = Runtime(Bot(lambda turn: turn.text), sqlite_url, settings=settings)
    app = host_of(runtime)

    @app.middleware("http")
    async def broken(request: Request, call_next: Any) -> Any:
        answer = await call_next(request)
        if request.headers.get("x-break"):
            raise Mine("after the endpoint")
        return answer

    async with serving(app) as url, httpx.AsyncClient(base_url=f"{url}/ai", timeout=20) as client:
        talker = await Talker.make(client)
        headers = {"Accept": "text/event-stream", "X-Break": "yes"}
        for _ in range(8):
            await talker.call("POST", "/turns", json={"text": "a"}, headers=headers)
        gc.collect()
        fine = await talker.call(
            "POST", "/turns", json={"text": "b"}, headers={"Accept": "text/event-stream"}
        )
        assert "turn.completed" in fine.text


def test_batchers_work_behind_a_fork() -> None:
    """A batcher of the module's, used before the fork and in the middle of a loop, serves the
    child too: with a coroutine function, and with a plain one whose threads the child lacks."""
    program = """
import asyncio, os
from turnwise import batched

@batched(max_size=4, dedup=True)
async def upper(texts): return [text.upper() for text in texts]

@batched(max_size=4)
def lower(texts): return [text.lower() for text in texts]

async def both():
    return await asyncio.wait_for(asyncio.gather(upper("a"), lower("B")), 5)

async def main():
    assert await both() == ["A", "b"]
    if (child := os.fork()) == 0:
        asyncio.events._set_running_loop(None)
        os._exit(0 if asyncio.run(both()) == ["A", "b"] else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert await both() == ["A", "b"]

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
