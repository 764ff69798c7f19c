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
    item's place is raised for that caller alone. At most `max_size` items make a batch, and up to
    `concurrency` batches are under way at a time. `observe(size)` is told the size of each batch.
    """

    def __init__(
        self,
        fn: Callable[[list[Item]], Awaitable[Sequence[Result | BaseException]]],
        *,
        max_size: int = 32,
        concurrency: int = 1,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self._fn = fn
        self._max_size = max_size
        self._concurrency = concurrency
        self._observe = observe
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
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
        if len(self._running) < self._concurrency and len(self._waiting) >= self._worth:
            # A context of its own: the first caller's variables must not leak into the batches.
            self._running.add(loop.create_task(self._run(), context=contextvars.Context()))
        return future

    @property
    def _worth(self) -> int:
        """How many items must wait to be worth a batch beside those under way."""
        return 1 if not self._running else 8

    async def aclose(self) -> None:
        """Take no more items and return when every one taken is answered."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)

    async def _run(self) -> None:
        try:
            while batch := self._take():
                await self._answer(batch)
        finally:
            self._running.discard(asyncio.current_task())

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
