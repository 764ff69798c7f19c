"""The command line: serve, work and chat here; the rest in sessions.py and scripts.py."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from http.client import HTTPConnection
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from turnwise import telemetry
from turnwise.channels.lines import LocalLine, RemoteLine
from turnwise.channels.terminal import Terminal
from turnwise.cli import scripts, secret, sessions
from turnwise.cli.demo import demo_name
from turnwise.cli.flags import BotTarget, StoreUrl, err, option, out, settings_with
from turnwise.cli.loading import load_bot
from turnwise.cli.processes import listen, run
from turnwise.errors import ConfigurationError, TurnwiseError
from turnwise.runtime import Runtime
from turnwise.settings import Settings
from turnwise.stores.open import open_store
from turnwise.urls import masked

T = TypeVar("T")
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # they hold passwords and keys
    help="Turnwise: stateful conversations that lose nothing.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """The `turnwise` program: an error is printed on one line and the exit status is 1."""
    _mend_streams()
    try:
        try:
            os.getcwd()
        except FileNotFoundError:
            raise TurnwiseError("The current working directory is gone.") from None
        app()
    except TurnwiseError as error:
        err.print(f"[red]Error:[/] {escape(error.message)}", highlight=False)
        sys.exit(1)


def _mend_streams() -> None:
    """The inherited streams may be closed, or may accept only ASCII."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, as a rule
            if opened != number:
                os.dup2(opened, number)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


# Serving


@app.command()
def serve(
    bot: BotTarget = None,
    store: StoreUrl = None,
    host: Annotated[str | None, option("host", "--host")] = None,
    port: Annotated[int | None, option("port", "--port")] = None,
    workers: Annotated[int | None, option("workers", "--workers")] = None,
    concurrency: Annotated[int | None, option("concurrency", "--concurrency")] = None,
    grace: Annotated[float | None, option("grace", "--grace")] = None,
    api_keys: Annotated[str | None, option("api_keys", "--api-keys")] = None,
    admin_keys: Annotated[str | None, option("admin_keys", "--admin-keys")] = None,
    allowed_origins: Annotated[str | None, option("allowed_origins", "--allowed-origins")] = None,
    title: Annotated[str | None, option("title", "--title")] = None,
    greeting: Annotated[str | None, option("greeting", "--greeting")] = None,
    accent: Annotated[str | None, option("accent", "--accent")] = None,
    logo: Annotated[str | None, option("logo", "--logo")] = None,
    protocols: Annotated[str | None, option("protocols", "--protocols")] = None,
    jwt_secret: Annotated[str | None, option("jwt_secret", "--jwt-secret")] = None,
    jwt_jwks_url: Annotated[str | None, option("jwt_jwks_url", "--jwt-jwks-url")] = None,
    jwt_issuer: Annotated[str | None, option("jwt_issuer", "--jwt-issuer")] = None,
    jwt_audience: Annotated[str | None, option("jwt_audience", "--jwt-audience")] = None,
    guests: Annotated[bool | None, option("guests", "--guests")] = None,
    when_busy: Annotated[str | None, option("when_busy", "--when-busy")] = None,
    settle: Annotated[float | None, option("settle", "--settle")] = None,
    owner_running: Annotated[int | None, option("owner_running", "--owner-running")] = None,
    owner_waiting: Annotated[int | None, option("owner_waiting", "--owner-waiting")] = None,
    files: Annotated[str | None, option("files", "--files")] = None,
    max_file: Annotated[int | None, option("max_file", "--max-file")] = None,
    max_files: Annotated[int | None, option("max_files", "--max-files")] = None,
    session_ttl: Annotated[float | None, option("session_ttl", "--session-ttl")] = None,
    token_ttl: Annotated[float | None, option("token_ttl", "--token-ttl")] = None,
    retention: Annotated[float | None, option("retention", "--retention")] = None,
    lease: Annotated[float | None, option("lease", "--lease")] = None,
    max_body: Annotated[int | None, option("max_body", "--max-body")] = None,
    max_text: Annotated[int | None, option("max_text", "--max-text")] = None,
    max_streams: Annotated[int | None, option("max_streams", "--max-streams")] = None,
    sessions_per_minute: Annotated[
        int | None, option("sessions_per_minute", "--sessions-per-minute")
    ] = None,
    messages_per_minute: Annotated[
        int | None, option("messages_per_minute", "--messages-per-minute")
    ] = None,
    body_timeout: Annotated[float | None, option("body_timeout", "--body-timeout")] = None,
    send_timeout: Annotated[float | None, option("send_timeout", "--send-timeout")] = None,
    log_level: Annotated[str | None, option("log_level", "--log-level")] = None,
    log_format: Annotated[str | None, option("log_format", "--log-format")] = None,
    debug: Annotated[bool | None, option("debug", "--debug")] = None,
    no_work: Annotated[bool, typer.Option("--no-work", help="Serve without a worker.")] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when a file changes (for development).")
    ] = False,
) -> None:
    """Serve a bot: its chat page, HTTP, WebSocket and workers in one program."""
    given = {
        "store": store, "host": host, "port": port, "workers": workers,
        "concurrency": concurrency, "grace": grace, "api_keys": api_keys, "admin_keys": admin_keys,
        "allowed_origins": allowed_origins, "session_ttl": session_ttl, "token_ttl": token_ttl,
        "retention": retention, "lease": lease, "max_body": max_body, "max_text": max_text,
        "max_streams": max_streams, "sessions_per_minute": sessions_per_minute,
        "messages_per_minute": messages_per_minute, "body_timeout": body_timeout,
        "send_timeout": send_timeout, "log_level": log_level, "log_format": log_format,
        "debug": debug,
        "title": title, "greeting": greeting, "accent": accent, "logo": logo,
        "protocols": protocols, "jwt_secret": jwt_secret,
        "jwt_jwks_url": jwt_jwks_url, "jwt_issuer": jwt_issuer,
        "jwt_audience": jwt_audience, "guests": guests, "when_busy": when_busy, "settle": settle,
        "owner_running": owner_running, "owner_waiting": owner_waiting, "files": files,
        "max_file": max_file, "max_files": max_files,
    }  # fmt: skip
    settings = settings_with(given)
    settings.origins()
    settings.doors()
    if reload and settings.workers > 1:
        raise ConfigurationError("--reload works with one process only: omit --workers.")
    # Errors are reported here, once, and not by every process.
    load_bot(bot)
    asyncio.run(_try_store(settings.store))
    if bot:
        os.environ["TURNWISE_BOT"] = bot
    os.environ["TURNWISE_WORK"] = "0" if no_work else "1"
    listening = listen(settings)
    threading.Thread(target=_announce, args=(settings, listening, bot), daemon=True).start()
    run(settings, listening, reload)


def _announce(settings: Settings, listening: socket.socket, bot: str | None) -> None:
    """Print the server's address once it answers; if printing fails, the server still runs."""
    host, port = settings.host, listening.getsockname()[1]
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while not _answers(near, port):
        time.sleep(0.05)
    named = f"[{host}]" if ":" in host else host
    works = os.environ["TURNWISE_WORK"] != "0"
    where = escape(f"http://{named}:{port}/")
    what = escape(bot or demo_name()) if works else "sessions"
    kept = f"Sessions are stored in {escape(masked(settings.store))}. Ctrl-C stops."
    with suppress(OSError, SystemExit):
        out.print(f"[bold]Turnwise[/] serves [cyan]{what}[/] at [link={where}]{where}[/]")
        out.print(kept, style="dim", soft_wrap=True)
        if not works:
            out.print("Turns wait until `turnwise work` answers them.", style="dim")


def _answers(host: str, port: int) -> bool:
    connection = HTTPConnection(host, port, timeout=5.0)
    try:
        connection.request("HEAD", "/health/live")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


async def _try_store(url: str) -> None:
    store = open_store(url)
    await store.open()
    await store.close()


@app.command()
def work(
    bot: BotTarget = None,
    store: StoreUrl = None,
    concurrency: Annotated[int | None, option("concurrency", "--concurrency")] = None,
    grace: Annotated[float | None, option("grace", "--grace")] = None,
    lease: Annotated[float | None, option("lease", "--lease")] = None,
    metrics_port: Annotated[int | None, option("metrics_port", "--metrics-port")] = None,
    log_level: Annotated[str | None, option("log_level", "--log-level")] = None,
    debug: Annotated[bool | None, option("debug", "--debug")] = None,
) -> None:
    """Run a worker only, for servers that were started with --no-work."""
    given = {
        "store": store, "concurrency": concurrency, "grace": grace, "lease": lease,
        "metrics_port": metrics_port, "log_level": log_level, "debug": debug,
    }  # fmt: skip
    settings = settings_with(given)
    telemetry.setup_logging(settings.log_level, settings.log_format)
    asyncio.run(_work(Runtime(load_bot(bot), settings=settings), bot or demo_name()))


async def _work(runtime: Runtime, named: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if runtime.settings.metrics_port is not None:
        telemetry.serve_metrics(runtime.settings.metrics_port)
    async with runtime:
        what, where = escape(named), escape(masked(runtime.settings.store))
        out.print(f"[bold]Turnwise[/] answers with [cyan]{what}[/] on {where}. Ctrl-C stops.")
        await stop.wait()


# Talking


@app.command()
def chat(
    bot: BotTarget = None,
    url: Annotated[str | None, typer.Option(help="Talk to the server at this URL.")] = None,
    token: Annotated[
        str | None, typer.Option(help="The token of a session there; default: a new session.")
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="The session to continue; default: one for each bot.")
    ] = None,
    store: StoreUrl = None,
) -> None:
    """Talk to a bot in the terminal."""
    if url is not None and (bot or store):
        raise ConfigurationError("--url names a server, which has its own bot and store.")
    if url is not None and session and not token:
        raise ConfigurationError("A session on a server needs its --token.")
    # A shell script starts background commands with SIGINT ignored, and Python keeps that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(ImportError):
        import readline  # noqa: F401 line editing and history for input()
    loop = asyncio.new_event_loop()

    def run() -> None:
        if hasattr(signal, "pthread_sigmask"):  # only the thread that reads input gets Ctrl-C
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()

    def call(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    if url is not None:
        line = call(RemoteLine.open(url, token=token, session_id=session))
        Terminal(line, loop, out).run()
        return
    settings = settings_with({"store": store, "debug": True})  # here the developer is the user
    telemetry.setup_logging("warning")
    runtime = Runtime(load_bot(bot), settings=settings)
    named = session or (f"terminal {bot}" if bot else "terminal")
    call(runtime.start())
    try:
        Terminal(LocalLine(runtime.gateway, named), loop, out).run()
    finally:
        call(runtime.stop())


# The help lists commands in the order in which they are added: the most used ones first.

app.command()(sessions.check)
app.add_typer(sessions.app, name="sessions")
app.add_typer(scripts.app, name="script")
app.add_typer(secret.app, name="secret")
