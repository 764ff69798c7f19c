"""Threads for blocking calls: jobs are handed over in order, results come back as futures.

A thread that never returns cannot be stopped, so they are daemons, and a set of them is abandoned
(`end`) and replaced instead of waited for.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Threads:
    """`count` threads that share one queue of jobs; with one thread, jobs run one by one."""

    def __init__(self, name: str, count: int = 1) -> None:
        self._name = name
        self._count = count
        self._start()

    def _start(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._at_work = 0
        self._process = os.getpid()
        for _ in range(self._count):
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._at_work > 0

    def run(self, fn: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """A future of `fn(*args)`, started after all earlier jobs."""
        if self._process != os.getpid():
            self._start()  # a fork has no threads of its parent's
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((lambda: fn(*args), loop, future))
        return future

    def end(self) -> None:
        """Let the threads finish their current jobs and end."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            fn, loop, future = job
            if future.cancelled():
                continue
            self._at_work += 1
            error: BaseException | None = None
            result = None
            try:
                result = fn()
            except StopIteration as stop:  # a future cannot carry it
                error = RuntimeError(f"StopIteration: {stop}")
            except BaseException as raised:
                error = raised
            self._at_work -= 1
            try:
                loop.call_soon_threadsafe(_deliver, future, result, error)
            except RuntimeError:
                return  # the loop is closed: no caller waits any longer
            del job, fn, future, result, error  # keep no references while waiting


async def alone(name: str, fn: Callable[..., T], *args: Any) -> T:
    """The result of `fn(*args)` in a thread of its own, in this context: however long it takes, no
    other call waits for a thread."""
    threads = Threads(name)
    try:
        return await threads.run(contextvars.copy_context().run, fn, *args)
    finally:
        threads.end()


def _deliver(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:
        wrapped = RuntimeError(f"The thread's function raised {type(error).__name__}.")
        wrapped.__cause__ = error
        future.set_exception(wrapped)
