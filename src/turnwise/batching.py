"""Batcher: turns many single calls into few batched ones.

It goes at once when idle and collects while busy: the first item starts a batch in the next
iteration of the event loop; what arrives while a batch is under way is the next batch. So an
idle system adds no wait and a busy one finds its own batch size. There is no loop task and no
queue object: `submit` appends, and one task lives from the first item until nothing waits.

Every future is done exactly once: with its own item's result, with the exception returned in its
place, or with an error of its own that has the exception of the whole batch as its cause.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from turnwise.errors import TurnwiseError

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatcherClosed(TurnwiseError):
    """The batcher is closed and takes no more items."""

    code = "batcher_closed"


class BatchFailed(TurnwiseError):
    """The batched function failed, or did not answer every item."""

    code = "batch_failed"


class Batcher(Generic[Item, Result]):
    """Calls `fn(list of items)` for many callers at once; each gets its own item's result.

    `fn` is a coroutine function that returns one result per item, in order; an exception in an
    item's place is raised for that caller alone. At most `max_size` items make a batch, and one
    batch is under way at a time. `observe(size)` is told the size of each batch.
    """

    def __init__(
        self,
        fn: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        *,
        max_size: int = 32,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self._fn = fn
        self._max_size = max_size
        self._observe = observe
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    async def __call__(self, item: Item) -> Result:
        """The result of one item. Cancelling the caller does not disturb its neighbours."""
        return await self.submit(item)

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Hand in `item` and get a future of its result. Raises BatcherClosed after `aclose`."""
        if self._closed:
            raise BatcherClosed()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if self._running is None:
            # A context of its own: the first caller's variables must not leak into the batches.
            self._running = loop.create_task(self._run(), context=contextvars.Context())
        return future

    async def aclose(self) -> None:
        """Take no more items and return when every one taken is answered."""
        self._closed = True
        if self._running is not None:
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        try:
            while batch := self._take():
                await self._answer(batch)
        finally:
            self._running = None

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._max_size:
            pair = self._waiting.popleft()
            if not pair[1].done():  # a caller that gave up is not computed
                batch.append(pair)
        return batch

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            if self._observe is not None:
                self._observe(len(batch))
            results = await self._fn([item for item, _ in batch])
            if len(results) != len(batch):
                raise BatchFailed(f"{len(batch)} items went in, {len(results)} results came out.")
        except BaseException as error:
            for _, future in batch:
                _fail(future, error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                _fail(future, result)
            elif not future.done():
                future.set_result(result)


def _fail(future: asyncio.Future[Result], error: BaseException) -> None:
    """Fail one caller. What a future cannot carry, or a shared exception, is wrapped."""
    if future.done():
        return
    if isinstance(error, TurnwiseError):
        future.set_exception(error)
        return
    wrapped = BatchFailed(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    future.set_exception(wrapped)
