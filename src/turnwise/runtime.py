"""Runtime: a bot, a store, a gateway and a worker that run together in one process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from types import FrameType
from typing import Any

import orjson

from turnwise import telemetry
from turnwise.asking import Asking
from turnwise.bot import Bot, Handler
from turnwise.channels.rate_limit import Rates
from turnwise.conversation import checked_policy, iso
from turnwise.errors import ConfigurationError, StoreUnavailable
from turnwise.files import open_files
from turnwise.gateway.files import FileLimits, Files
from turnwise.gateway.gateway import Gateway, Limits
from turnwise.gateway.hub import Hub
from turnwise.gateway.overview import Overview
from turnwise.media import Media
from turnwise.roll_call import RollCall
from turnwise.settings import Settings
from turnwise.stores.base import Store
from turnwise.stores.memory import MemoryStore
from turnwise.stores.open import open_store
from turnwise.stores.sqlite.store import SQLiteStore
from turnwise.tokens import SIGNING, Signer, active
from turnwise.worker.loop_watch import LoopWatch
from turnwise.worker.worker import Worker

log = logging.getLogger("turnwise")

SWEEP = 5.0
"""Seconds between two sweeps that delete expired data."""
TIDY = 600.0
"""Seconds between two looks for files that nobody names."""
NAMED = "named"
"""The fact in the store that holds what the bot has named."""
COUNT_WAITING = 3
"""Seconds between two counts of the waiting turns."""


class Runtime(Asking):
    """Opens `store` and answers its turns with `bot`.

    `bot` may also be a bare reply handler. `store` is a URL such as `sqlite:///turnwise.db` or a
    Store; the default comes from the settings. With `worker=False` turns are submitted and
    followed here but answered by other processes, and no bot is needed.
    Use it as `async with runtime:`, or give `runtime.lifespan` to a FastAPI application.
    """

    def __init__(
        self,
        bot: Bot | Handler | None = None,
        store: str | Store | None = None,
        *,
        worker: bool = True,
        settings: Settings | None = None,
    ) -> None:
        self.bot = bot if isinstance(bot, Bot) else Bot(bot)
        self.settings = settings or Settings()
        chosen = self.settings.store if store is None else store
        self._store = (
            open_store(chosen, observe=telemetry.batch) if isinstance(chosen, str) else chosen
        )
        self._files = open_files(
            self.settings.files,
            self._store.path if isinstance(self._store, SQLiteStore) else None,
            memory=isinstance(self._store, MemoryStore),
        )
        self.media = Media(self.settings.max_file)
        self.rates = Rates(self.settings.sessions_per_minute, self.settings.messages_per_minute)
        self._with_worker = worker
        self._worker: Worker | None = None
        self._gateway: Gateway | None = None
        self._hub: Hub | None = None
        self._chores: list[asyncio.Task[None]] = []
        self._restore: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_watch: LoopWatch | None = None
        self._process = 0
        self._started_at = 0.0
        self._running = False
        self.stopping = False

    # Life

    async def __aenter__(self) -> Runtime:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """For `FastAPI(lifespan=runtime.lifespan)`: runs while the application runs.

        In your own lifespan: `async with runtime: yield`. In both cases SIGTERM and SIGINT
        immediately close open streams and stop the worker from taking turns, before the server
        waits for its connections; a second signal releases the running turns without a grace.
        """
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def start(self) -> None:
        """Open the store and start the worker. Raises StoreUnavailable, ConfigurationError."""
        if self._running:
            self._check_place()
            raise ConfigurationError("This runtime is already running.")
        if self._with_worker:
            self.bot.check()
        self._running, self.stopping = True, False
        try:
            await self._start()
        except BaseException:
            self._running = False
            with contextlib.suppress(Exception):
                await self._store.close()
            raise

    async def _start(self) -> None:
        settings, store = self.settings, self._store
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        self._started_at = time.time()
        await store.open()
        self._hub = Hub(store, limit=settings.max_streams)
        if self._with_worker:
            self._worker = Worker(
                store,
                self.bot.answer,
                self.bot.options,
                concurrency=settings.concurrency,
                lease=settings.lease,
                debug=settings.debug,
                owner_limit=settings.owner_running,
                files=self._files,
                media=self.media,
            )
            named = [self.bot.queue_limit, *self.bot.policy]
            await store.publish(NAMED, orjson.dumps(named))
        self._signer = Signer(await store.secret(), settings.token_ttl)
        await self._learn_secrets()
        self._gateway = Gateway(
            store,
            self._hub,
            self._signer,
            limits=await self._limits(),
            session_ttl=settings.session_ttl,
            offer=self._worker.offer if self._worker else None,
            take=self._worker.take if self._worker else None,
            files=Files(store, self._files, FileLimits(settings.max_file, settings.max_files)),
        )
        self._calls = RollCall(store, self._report)
        self.overview = Overview(store, self._calls)
        if self._worker is not None:
            await self.bot.start()
            self._worker.start()
            self._loop_watch = LoopWatch(self._worker.whose)
            self._loop_watch.start()
        self._watch_signals()
        loop = asyncio.get_running_loop()
        self._chores = [
            loop.create_task(self._sweep_forever()),
            loop.create_task(self._count_forever()),
            loop.create_task(self._tidy_forever()),
            loop.create_task(self._calls.answer_forever()),
        ]

    async def _learn_secrets(self) -> None:
        """Know the active secrets: a rotation may have changed them."""
        store = self._store
        secrets = active(await store.secret(), await store.published(SIGNING))
        self._signer.learn(secrets, time.time())

    async def _limits(self) -> Limits:
        """The limits of the gateway: by the settings, and by what the bot has named, here or in the
        processes that run it."""
        settings, queue, policy = self.settings, self.bot.queue_limit, self.bot.policy
        named = {} if self._with_worker else await self._store.published(NAMED)
        if NAMED in named:
            queue, when_busy, settle = orjson.loads(named[NAMED])
            policy = when_busy, settle
        if settings.when_busy is not None:
            policy = checked_policy(settings.when_busy, settings.settle)
        return Limits(settings.max_text, queue, settings.owner_waiting, policy)

    def retire(self) -> None:
        """Close open streams and take no more turns, because this process will stop soon."""
        self.stopping = True
        if self._worker is not None:
            self._worker.retire()
        if self._hub is not None:
            self._hub.shutdown()

    def _hear_signal(self) -> None:
        if self.stopping and self._worker is not None:
            self._worker.hurry()
        self.retire()

    async def stop(self) -> None:
        """Drain: running turns get `settings.grace` seconds, the others return to the mailbox."""
        if not self._running:
            return
        self.retire()
        if self._loop_watch is not None:
            self._loop_watch.stop()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        if self._worker is not None:
            await self._worker.drain(self.settings.grace)
            try:
                await self.bot.aclose()
            except Exception:
                log.exception("the bot cannot be closed")
        if self._hub is not None:
            self._hub.close()
        with contextlib.suppress(StoreUnavailable):
            await self._calls.withdraw()
        await self._store.close()
        self._gateway = self._worker = self._hub = None
        self._running = False
        for restore in self._restore:
            restore()
        self._restore.clear()

    def _watch_signals(self) -> None:
        """Handle SIGTERM and SIGINT before the installed handler (the server's) does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(number)
            if not callable(previous):
                continue

            def hear(n: int, frame: FrameType | None, previous: Any = previous) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended in the meantime
                    loop.call_soon_threadsafe(self._hear_signal)
                previous(n, frame)

            def restore(n: int = number, ours: Any = hear, previous: Any = previous) -> None:
                if signal.getsignal(n) is ours:  # else another handler was installed later
                    signal.signal(n, previous)

            with contextlib.suppress(ValueError):  # not in the main thread: the host handles it
                signal.signal(number, hear)
                self._restore.append(restore)

    async def _count_forever(self) -> None:
        """Set the gauges once a second: cheaper than on every reader and every turn."""
        seconds = 0
        while True:
            telemetry.STREAMS.set(self._hub.count if self._hub else 0)
            telemetry.RUNNING.set(self._worker.running if self._worker else 0)
            if seconds % COUNT_WAITING == 0:
                with contextlib.suppress(StoreUnavailable):
                    telemetry.WAITING.set(await self._store.waiting())
            seconds += 1
            await asyncio.sleep(1.0)

    def _report(self) -> dict[str, Any]:
        """What this process says of itself when it is asked; see roll_call.py."""
        worker = self._worker
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": version("turnwise"),
            "started_at": iso(self._started_at),
            "worker": worker.name if worker else None,
            "running": worker.running if worker else 0,
            "concurrency": self.settings.concurrency if worker else 0,
            "streams": self._hub.count if self._hub else 0,
            "stopping": self.stopping,
            "figures": telemetry.figures(),
        }

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            try:
                await self._store.sweep(retention=self.settings.retention)
                self.gateway.limits = await self._limits()
                await self._learn_secrets()
            except StoreUnavailable as error:
                log.warning("cannot sweep: %s", error)
            except Exception:
                log.exception("cannot sweep")

    async def _tidy_forever(self) -> None:
        while True:
            await asyncio.sleep(TIDY)
            try:
                await self.gateway.files.sweep()
                await self.gateway.deliveries.sweep()
            except StoreUnavailable as error:
                log.warning("cannot tidy: %s", error)
            except Exception:
                log.exception("cannot tidy")

    # Talking

    @property
    def gateway(self) -> Gateway:
        """Submit, follow, cancel, read. Raises ConfigurationError when not running."""
        if self._gateway is None:
            raise ConfigurationError(
                "The runtime is not running: use `async with runtime:`, or pass its lifespan to "
                "the application: FastAPI(lifespan=runtime.lifespan)."
            )
        self._check_place()
        return self._gateway

    def _check_place(self) -> None:
        """Raises ConfigurationError in any process or event loop but the runtime's own."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # outside of any loop: the command line passes the gateway from there
        if loop is self._loop:
            return
        if os.getpid() != self._process:
            raise ConfigurationError(
                f"This runtime was started in process {self._process}, and this process is a fork "
                "of it: create and start a runtime in each process, after the fork."
            )
        raise ConfigurationError(
            "This runtime belongs to another event loop: make the endpoint `async def` and await "
            "it there, or from a thread use asyncio.run_coroutine_threadsafe(runtime.ask(...), "
            "loop).result() with the loop in which the runtime was started."
        )

    @property
    def store(self) -> Store:
        """The store, for the command line and the tests."""
        return self._store
