"""Calling: runs a batched function of any kind and checks its results.

Async functions run on the loop, plain ones in separate threads or processes. A generator yields
lists that hold one piece for each item.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
    Sequence,
    Set,
    ValuesView,
)
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from turnwise.batching.errors import BatchFailed, BatchTimeout, ProcessDied
from turnwise.callables import kind_of
from turnwise.errors import ConfigurationError
from turnwise.threads import Threads

Pieces = Callable[[Sequence[Any]], bool]
"""Called with each list that a generator yields; returns whether any caller wants more."""


class Caller(ABC):
    """Runs one function. `ahead`: one batch more than `concurrency` may be submitted, which starts
    as soon as another ends; not for a function on the loop, because that starts at once."""

    ahead = True
    streams = False

    @abstractmethod
    async def call(self, items: list[Any], pieces: Pieces) -> Any:
        """The function's result; pieces of a stream go to `pieces`, and the result is None."""

    def abandon(self) -> None:  # noqa: B027 -- on the loop there is nothing to abandon
        """A call took too long and was abandoned."""

    def close(self) -> None:  # noqa: B027
        """No further calls follow."""


class OnLoop(Caller):
    """A coroutine function."""

    ahead = False

    def __init__(self, fn: Callable[[list[Any]], Any]) -> None:
        self._fn = fn

    async def call(self, items: list[Any], pieces: Pieces) -> Any:
        return await self._fn(items)


class InThread(Caller):
    """A plain function, in one of `count` threads."""

    def __init__(self, fn: Callable[[list[Any]], Any], count: int) -> None:
        self._fn = fn
        self._count = count
        self._threads: Threads | None = None

    def _run(self, fn: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        if self._threads is None:
            self._threads = Threads("turnwise-batch", self._count)
        return self._threads.run(fn, *args)

    async def call(self, items: list[Any], pieces: Pieces) -> Any:
        answer = await self._run(self._fn, items)
        return await answer if inspect.isawaitable(answer) else answer

    def abandon(self) -> None:
        if self._threads is not None:
            self._threads.end()  # a job that hangs there is abandoned
            self._threads = None

    close = abandon


class InProcess(Caller):
    """A plain function that can be pickled by its name, in a process of its own for each call that
    runs at once."""

    def __init__(self, fn: Callable[[list[Any]], Any]) -> None:
        self._fn = fn
        self._idle: list[ProcessPoolExecutor] = []
        """A pool of one process each, so that one can be killed without the others."""
        self._owner = 0

    async def call(self, items: list[Any], pieces: Pieces) -> Any:
        if self._owner != os.getpid():  # a fork has no processes of its parent's
            self._owner = os.getpid()
            self._idle = []
        if self._idle:
            pool = self._idle.pop()
        else:
            pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            found = await asyncio.get_running_loop().run_in_executor(pool, self._fn, items)
        except BrokenProcessPool as error:  # it died, or raised what cannot be brought here
            raise ProcessDied() from error
        except asyncio.CancelledError:  # it took too long
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except BaseException:
            self._idle.append(pool)
            raise
        self._idle.append(pool)
        return found

    def close(self) -> None:
        while self._idle:
            self._idle.pop().shutdown(wait=False, cancel_futures=True)


class Streaming(InThread):
    """A generator function, async or plain, that yields lists."""

    ahead = False
    streams = True

    async def call(self, items: list[Any], pieces: Pieces) -> Any:
        if kind_of(self._fn) == "async generator":
            lists: AsyncIterator[Sequence[Any]] = self._fn(items)
        else:
            lists = self._in_thread(self._fn(items))
        try:
            async for answer in lists:
                if not pieces(answered(answer, len(items))):
                    return
        finally:
            await lists.aclose()  # type: ignore[attr-defined]

    async def _in_thread(self, lists: Iterator[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
        end = object()
        while (answer := await self._run(next, lists, end)) is not end:
            yield answer


def caller(fn: Callable[[list[Any]], Any], concurrency: int, process: bool) -> Caller:
    """How to run `fn`."""
    if not callable(fn):
        raise ConfigurationError("A batched function must be a function (items) -> results.")
    kind = kind_of(fn)
    if process:
        if kind != "sync":
            raise ConfigurationError("Only a plain function can run in a process.")
        return InProcess(fn)
    if kind == "async":
        return OnLoop(fn)
    return InThread(fn, concurrency) if kind == "sync" else Streaming(fn, concurrency)


async def in_time(call: Caller, items: list[Any], pieces: Pieces, seconds: float) -> Any:
    """`call.call`, but for at most `seconds`, even if it ignores cancellation."""
    task = asyncio.ensure_future(call.call(items, pieces))
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except BaseException:
        task.cancel()
        raise
    if done:
        return task.result()
    task.cancel()
    task.add_done_callback(lambda late: late.cancelled() or late.exception())
    call.abandon()
    raise BatchTimeout()


_NO_LISTS = (str, bytes, bytearray, memoryview, Mapping, Set)


def _has_rows(output: Any, count: int) -> bool:
    """Whether this could be an output of a model for so many items, as an array or a list."""
    if isinstance(output, list):
        return len(output) == count
    return tuple(getattr(output, "shape", ()))[:1] == (count,)


def _is_one_for_each(answer: Any, count: int) -> bool:
    """Whether this is a list by another type, and not one value, or several outputs side by side:
    a tokenizer's mapping, a named tuple, a table by columns, a tuple of arrays."""
    if isinstance(answer, _NO_LISTS) or not hasattr(answer, "__len__"):
        return isinstance(answer, ValuesView)
    if isinstance(answer, tuple):
        outputs = answer and all(_has_rows(one, count) for one in answer)
        return type(answer) is tuple and not outputs
    return not hasattr(answer, "columns") and not hasattr(answer, "keys")


def answered(answer: Any, count: int) -> Sequence[Any]:
    """The function's results, one for each of `count` items. Raises BatchFailed."""
    if type(answer) is list:
        results: Sequence[Any] = answer
    elif _is_one_for_each(answer, count):
        results = list(answer)  # an array, a data frame's column
    else:
        kind = type(answer).__name__
        raise BatchFailed(f"A batched function answers with a list, not {kind}.")
    if len(results) != count:
        raise BatchFailed(f"{count} items went in, {len(results)} results came out.")
    return results
