"""The command line: serve, work, chat, sessions, check."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from uvicorn.supervisors import Multiprocess

from turnwise import cli_script, server, telemetry
from turnwise.channels.terminal import LocalLine, RemoteLine, Terminal, printable
from turnwise.conversation import iso
from turnwise.errors import ConfigurationError, NotFound, TurnwiseError
from turnwise.runtime import Runtime
from turnwise.settings import Settings
from turnwise.stores.base import Store
from turnwise.stores.open import open_store
from turnwise.stores.sqlite import SQLiteStore

T = TypeVar("T")
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Turnwise: stateful conversations that lose nothing.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
sessions = typer.Typer(no_args_is_help=True, help="Look at sessions, export and delete them.")
app.add_typer(sessions, name="sessions")
app.add_typer(cli_script.app, name="script")
out = Console()
err = Console(stderr=True)

_DEFAULTS = Settings.model_fields


def _option(field: str, *names: str) -> Any:
    """A flag for a setting: its help, its default and its variable come from the settings."""
    info = _DEFAULTS[field]
    return typer.Option(
        *names,
        envvar=f"TURNWISE_{field.upper()}",
        help=f"{info.description} [dim](default: {info.default or 'none'})[/]",
        show_default=False,
    )


BotTarget = Annotated[
    str | None,
    typer.Argument(help="Your bot as module:name, or a script's file; else the demo."),
]
StoreUrl = Annotated[str | None, _option("store", "--store")]
Json = Annotated[bool, typer.Option("--json", help="JSON for machines.")]


def _version(asked: bool) -> None:
    if asked:
        out.print(f"turnwise {version('turnwise')}", highlight=False)
        raise typer.Exit()


@app.callback()
def program(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Turnwise: stateful conversations that lose nothing."""


def main() -> None:
    """The `turnwise` program: errors are told in a line and end with status 1."""
    try:
        app()
    except TurnwiseError as error:
        err.print(f"[red]Error:[/] {error.message}", highlight=False)
        sys.exit(1)


# Serving


@app.command()
def serve(
    bot: BotTarget = None,
    store: StoreUrl = None,
    host: Annotated[str | None, _option("host", "--host")] = None,
    port: Annotated[int | None, _option("port", "--port")] = None,
    workers: Annotated[int | None, _option("workers", "--workers")] = None,
    concurrency: Annotated[int | None, _option("concurrency", "--concurrency")] = None,
    grace: Annotated[float | None, _option("grace", "--grace")] = None,
    api_keys: Annotated[str | None, _option("api_keys", "--api-keys")] = None,
    allowed_origins: Annotated[str | None, _option("allowed_origins", "--allowed-origins")] = None,
    session_ttl: Annotated[float | None, _option("session_ttl", "--session-ttl")] = None,
    token_ttl: Annotated[float | None, _option("token_ttl", "--token-ttl")] = None,
    retention: Annotated[float | None, _option("retention", "--retention")] = None,
    lease: Annotated[float | None, _option("lease", "--lease")] = None,
    max_body: Annotated[int | None, _option("max_body", "--max-body")] = None,
    max_text: Annotated[int | None, _option("max_text", "--max-text")] = None,
    max_streams: Annotated[int | None, _option("max_streams", "--max-streams")] = None,
    sessions_per_minute: Annotated[
        int | None, _option("sessions_per_minute", "--sessions-per-minute")
    ] = None,
    messages_per_minute: Annotated[
        int | None, _option("messages_per_minute", "--messages-per-minute")
    ] = None,
    body_timeout: Annotated[float | None, _option("body_timeout", "--body-timeout")] = None,
    send_timeout: Annotated[float | None, _option("send_timeout", "--send-timeout")] = None,
    log_level: Annotated[str | None, _option("log_level", "--log-level")] = None,
    no_work: Annotated[bool, typer.Option("--no-work", help="Only serve; others answer.")] = False,
) -> None:
    """Serve a bot: its chat page, HTTP, WebSocket and workers in one."""
    given = {
        "store": store, "host": host, "port": port, "workers": workers,
        "concurrency": concurrency, "grace": grace, "api_keys": api_keys,
        "allowed_origins": allowed_origins, "session_ttl": session_ttl, "token_ttl": token_ttl,
        "retention": retention, "lease": lease, "max_body": max_body, "max_text": max_text,
        "max_streams": max_streams, "sessions_per_minute": sessions_per_minute,
        "messages_per_minute": messages_per_minute, "body_timeout": body_timeout,
        "send_timeout": send_timeout, "log_level": log_level,
    }  # fmt: skip
    settings = _settings(given)
    # What is wrong is told here, once, and not by every process.
    server.load_bot(bot)
    asyncio.run(_try_store(settings.store))
    if bot:
        os.environ["TURNWISE_BOT"] = bot
    os.environ["TURNWISE_WORK"] = "0" if no_work else "1"
    listening = _listen(settings)
    where = f"http://{settings.host}:{listening.getsockname()[1]}/"
    out.print(f"[bold]Turnwise[/] serves [cyan]{bot or 'the demo bot'}[/] at [link]{where}[/]")
    out.print(f"Sessions are kept in {settings.store}. Ctrl-C stops.", style="dim")
    _run(settings, listening)


def _settings(given: dict[str, Any]) -> Settings:
    """Settings with these flags on top, for this process and those it starts."""
    for name, value in given.items():
        if value is not None:
            os.environ[f"TURNWISE_{name.upper()}"] = str(value)
    try:
        return Settings()
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ConfigurationError(f"{wrong['loc'][0]}: {wrong['msg']}") from None


async def _try_store(url: str) -> None:
    store = open_store(url)
    await store.open()
    await store.close()


def _listen(settings: Settings) -> socket.socket:
    """The listening socket; a client that is silently gone is dropped after a while."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP: asyncio turns Nagle's delay off (40 ms an answer) only where it knows that.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        patience = int(settings.send_timeout * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        raise TurnwiseError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            "Is a server running there already? Try --port."
        ) from None
    listening.set_inheritable(True)
    return listening


def _run(settings: Settings, listening: socket.socket) -> None:
    config = uvicorn.Config(
        "turnwise.server:from_environment",
        factory=True,
        workers=settings.workers,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws_max_size=4 * settings.max_body,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=int(settings.grace) + 5,
        timeout_keep_alive=20,
    )
    if settings.workers == 1:
        uvicorn.Server(config).run(sockets=[listening])
        return
    with tempfile.TemporaryDirectory(prefix="turnwise-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        os.environ["TURNWISE_PARENT"] = str(os.getpid())
        Multiprocess(config, sockets=[listening]).run()


@app.command()
def work(
    bot: BotTarget = None,
    store: StoreUrl = None,
    concurrency: Annotated[int | None, _option("concurrency", "--concurrency")] = None,
    grace: Annotated[float | None, _option("grace", "--grace")] = None,
    log_level: Annotated[str | None, _option("log_level", "--log-level")] = None,
) -> None:
    """Only answer: a worker beside servers that were started with --no-work."""
    given = {"store": store, "concurrency": concurrency, "grace": grace, "log_level": log_level}
    settings = _settings(given)
    telemetry.setup_logging(settings.log_level)
    runtime = Runtime(server.load_bot(bot), settings=settings)
    named = bot or "the demo bot"
    out.print(f"[bold]Turnwise[/] answers with [cyan]{named}[/] on {settings.store}. Ctrl-C stops.")
    asyncio.run(_work(runtime))


async def _work(runtime: Runtime) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with runtime:
        await stop.wait()


# Talking


@app.command()
def chat(
    bot: BotTarget = None,
    url: Annotated[str | None, typer.Option(help="Talk to a server instead.")] = None,
    token: Annotated[
        str | None, typer.Option(help="A session's token there; without it, a new session.")
    ] = None,
    session: Annotated[str, typer.Option(help="The session to go on with.")] = "terminal",
    store: StoreUrl = None,
) -> None:
    """Talk to a bot in the terminal."""
    with suppress(ImportError):
        import readline  # noqa: F401 line editing and history for input()
    loop = asyncio.new_event_loop()

    def run() -> None:
        if hasattr(signal, "pthread_sigmask"):  # Ctrl-C is for the thread that reads lines
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()

    def call(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    if url is not None:
        line = call(RemoteLine.open(url, token=token, session_id=None))
        Terminal(line, loop, out).run()
        return
    runtime = Runtime(server.load_bot(bot), settings=_settings({"store": store}))
    call(runtime.start())
    try:
        Terminal(LocalLine(runtime.gateway, session), loop, out).run()
    finally:
        call(runtime.stop())


# Looking


@asynccontextmanager
async def _opened(url: str | None) -> AsyncIterator[Store]:
    """The store, which must be there: a mistyped name should not look like an empty store."""
    named = _settings({"store": url}).store
    store = open_store(named)
    if isinstance(store, SQLiteStore) and not store.path.exists():
        raise ConfigurationError(f"There is no file {store.path} (store {named}).")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@sessions.command("list")
def list_sessions(
    store: StoreUrl = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """A table of the sessions."""

    async def go() -> list[dict[str, Any]]:
        async with _opened(store) as opened:
            return [session.as_dict() for session in await opened.sessions(limit=limit)]

    found = asyncio.run(go())
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table("name", "status", "turns", "messages", "created", "expires")
    table.columns.insert(0, Column("session", overflow="fold", min_width=24))
    for one in found:
        row = [one["id"], one["name"] or "", one["status"], str(one["turns"])]
        row += [str(one["messages"]), one["created_at"][:10], one["expires_at"][:10]]
        table.add_row(*(printable(cell) for cell in row))
    out.print(table if found else "No sessions yet.")


@sessions.command("show")
def show_session(session: str, store: StoreUrl = None, as_json: Json = False) -> None:
    """A session and its last messages."""

    async def go() -> dict[str, Any]:
        async with _opened(store) as opened:
            return await _whole(opened, session, limit=50)

    found = asyncio.run(go())
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table(show_header=False, box=None)
    for key in ("id", "name", "status", "turns", "messages", "created_at", "expires_at"):
        table.add_row(key, printable(str(found[key])), style="bold" if key == "id" else "")
    out.print(table)
    for message in found["history"]:
        style = "cyan" if message["role"] == "user" else "green"
        out.print(f"{message['created_at'][:19]} {message['role']:>9}: ", style=style, end="")
        out.print(printable(message["text"]), markup=False, highlight=False)
    if found["state"]:
        out.print("state", found["state"])


@sessions.command("delete")
def delete_sessions(
    session: Annotated[list[str] | None, typer.Argument(help="Their ids.")] = None,
    store: StoreUrl = None,
    everything: Annotated[bool, typer.Option("--all", help="All sessions.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete sessions: nothing of them is left."""
    if not session and not everything:
        raise TurnwiseError("Name the sessions to delete, or say --all.")
    if everything and not yes:
        typer.confirm("Delete ALL sessions?", abort=True)

    async def go() -> int:
        async with _opened(store) as opened:
            chosen = [s.id async for s in _every(opened)] if everything else list(session or [])
            deleted = 0
            with Progress(console=err, transient=True, disable=len(chosen) < 20) as progress:
                for one in progress.track(chosen, description="Deleting"):
                    deleted += await opened.delete(one)
            return deleted

    deleted = asyncio.run(go())
    out.print(f"Deleted {deleted} session{'s' if deleted != 1 else ''}.")
    if session and deleted < len(session):
        raise NotFound(f"{len(session) - deleted} of them were not there.")


@sessions.command("export")
def export_sessions(
    session: Annotated[str | None, typer.Argument(help="Its id; without it, --all.")] = None,
    store: StoreUrl = None,
    everything: Annotated[bool, typer.Option("--all", help="All sessions.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file.")] = None,
) -> None:
    """Write sessions as JSON, one a line: everything that was said, and the state."""
    if session is None and not everything:
        raise TurnwiseError("Name the session to export, or say --all.")

    async def go() -> None:
        async with _opened(store) as opened:
            chosen = [session] if session else [s.id async for s in _every(opened)]
            with Progress(console=err, transient=True, disable=output is None) as progress:
                for one in progress.track(chosen, description="Exporting"):
                    file.write(orjson.dumps(await _whole(opened, one)) + b"\n")

    with output.open("wb") if output else os.fdopen(1, "wb", closefd=False) as file:
        asyncio.run(go())


async def _every(store: Store) -> AsyncIterator[Any]:
    after = ""
    while page := await store.sessions(after=after, limit=500):
        for session in page:
            yield session
        after = page[-1].id


async def _whole(store: Store, session: str, limit: int | None = None) -> dict[str, Any]:
    """A session with its history (all of it, or the last `limit` messages) and its state."""
    found = await store.session(session)
    if found is None:
        raise NotFound(f"There is no session {session!r}.")
    messages: list[Any] = []
    before = None
    while True:
        page = await store.history(session, before=before, limit=limit or 500)
        stretch = [orjson.loads(message) for message in page.messages]
        messages = stretch + messages
        if limit is not None or not page.has_more:
            break
        before = stretch[0]["seq"]
    state = orjson.loads(await store.state(session))
    return {**found.as_dict(), "history": messages, "state": state, "exported_at": _now()}


def _now() -> str:
    import time

    return iso(time.time())


@app.command()
def check(
    url: Annotated[str | None, typer.Argument(help="A store's URL; else the setting.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether a store can be reached and what its acknowledgement is worth."""

    async def go() -> dict[str, str]:
        async with _opened(url) as opened:
            await opened.ping()
            return await opened.facts()

    facts = asyncio.run(go())
    if as_json:
        print(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table(show_header=False)
    for key, value in facts.items():
        table.add_row(key, value)
    out.print(table)
    out.print("[green]The store answers.[/]")
