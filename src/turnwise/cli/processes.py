"""The processes of `turnwise serve`: the socket that they share, and what each of them runs.

Nothing else in Turnwise touches the process itself (its collector, its signals, its exit).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from turnwise import telemetry
from turnwise.cli.demo import IDEAS, has_model
from turnwise.cli.loading import load_bot
from turnwise.errors import TurnwiseError
from turnwise.runtime import Runtime
from turnwise.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI


def listen(settings: Settings) -> socket.socket:
    """The listening socket; a client that vanished is disconnected after `send_timeout`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol set to TCP, asyncio disables Nagle's algorithm (40 ms per answer).
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
            "Is another server running there? Try --port, or TURNWISE_PORT."
        ) from None
    listening.set_inheritable(True)
    return listening


def run(settings: Settings, listening: socket.socket, reload: bool) -> None:
    """Run the server's processes on `listening` until a signal stops them."""
    import uvicorn
    from uvicorn.supervisors import ChangeReload, Multiprocess

    config = uvicorn.Config(
        "turnwise.cli.processes:from_environment",
        factory=True,
        workers=settings.workers,
        log_level="warning",
        access_log=False,
        lifespan="on",
        http="turnwise.server.front:Front",
        reload=reload,
        reload_includes=["*.py", "*.yaml", "*.yml", ".env"] if reload else None,
        ws_max_size=4 * settings.max_body,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=int(settings.grace) + 5,
        timeout_keep_alive=75,  # longer than proxies and clients keep idle connections: they close
    )
    if reload:
        os.environ["TURNWISE_PARENT"] = str(os.getpid())
        server = uvicorn.Server(config)
        ChangeReload(config, target=server.run, sockets=[listening]).run()
        return
    if settings.workers == 1:
        uvicorn.Server(config).run(sockets=[listening])
        return
    with tempfile.TemporaryDirectory(prefix="turnwise-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        os.environ["TURNWISE_PARENT"] = str(os.getpid())
        Multiprocess(config, sockets=[listening]).run()


def from_environment() -> FastAPI:
    """The application that `turnwise serve` runs in each of its processes."""
    from turnwise.server.app import create_app  # FastAPI: other commands do without

    settings = Settings()
    if "TURNWISE_PARENT" in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    telemetry.setup_logging(settings.log_level, settings.log_format)
    work = os.environ.get("TURNWISE_WORK", "1") != "0"
    named = os.environ.get("TURNWISE_BOT")
    runtime = Runtime(load_bot(named), settings=settings, worker=work)
    app = create_app(runtime, ideas=() if named or has_model() else IDEAS)
    # Everything loaded by now stays: the garbage collector need not scan it again.
    gc.collect()
    gc.freeze()
    return app


def _end_with_parent() -> None:
    """A server process whose supervisor was killed must not keep the port."""
    while os.getppid() == int(os.environ["TURNWISE_PARENT"]):
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
