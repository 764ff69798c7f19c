"""Batcher: combines many single calls into few batched calls.

It starts a batch at once when idle and collects items while busy: the first item starts a batch in
the next iteration of the event loop; items that arrive while a batch runs form the next batch. So
an idle system adds no delay and a busy one finds its own batch size. It needs neither a permanent
task nor a queue object: `submit` adds a ticket, and a task runs from the first item until no batch
is due.

release.py decides which batch starts now; delivery.py delivers the results to the callers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import logging
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from turnwise.batching.computing import COMPUTED, Computed, Computing
from turnwise.batching.delivery import Telling, pass_on
from turnwise.batching.errors import (
    BatcherClosed,
    BatcherFull,
    TooCostly,
)
from turnwise.batching.queue import Budget, Ticket, Waiting
from turnwise.batching.release import Release, Released
from turnwise.batching.runner import caller
from turnwise.batching.stats import Batch, Reason, ServiceTime, Stats
from turnwise.errors import ConfigurationError
from turnwise.limits import check_counts, check_positive

log = logging.getLogger("turnwise.batching")

Item = TypeVar("Item")
Result = TypeVar("Result")

Answer = (
    Awaitable[Iterable[Result | BaseException]]
    | Iterable[Result | BaseException]
    | AsyncIterable[Sequence[Any]]
)
"""What a batched function returns."""
CLOSING = 30.0
"""Seconds that `aclose` waits for running batches."""


class Batcher(Generic[Item, Result]):
    """Calls `fn(list of items)` for many callers at once; each gets its own item's result.

    `fn` returns one result per item, in order; if it returns an Exception for an item, only that
    item's caller gets it. It is a coroutine function, a plain one (which runs in a thread, with
    `process` in a process), or a generator that yields lists of pieces (see `stream`).

    `max_size`: the maximum number of items in a batch. `max_wait`: seconds that the oldest item may
    wait for more items, when more are likely. `min_size`: a batch waits until it holds this number
    of items or until `max_wait` has passed for the oldest, whichever comes first, even if no other
    batch is running (N or T). `concurrency`: batches that run at once. `timeout`: seconds that a
    batch may take. `isolate`: if `fn` raises for a batch, try its halves, so that only the bad item
    fails (`fn` must be idempotent). `max_queue`: items that may wait. `key(item)`: only items with
    the same key share a batch. `cost(item)` with `max_cost`: the maximum cost of a batch, `padded`
    if each item is padded to the costliest. `dedup`: equal unfinished items are computed once.
    `ageing`: seconds of waiting that raise an item's priority by one. `name`: the label under which
    its metrics are exported. `observe` is called for each batch.
    """

    def __init__(
        self,
        fn: Callable[[list[Item]], Answer[Result]],
        *,
        max_size: int = 32,
        max_wait: float = 0.0,
        min_size: int = 1,
        concurrency: int = 1,
        timeout: float | None = None,
        isolate: bool = False,
        max_queue: int | None = None,
        key: Callable[[Item], Hashable] | None = None,
        cost: Callable[[Item], float] | None = None,
        max_cost: float | None = None,
        padded: bool = True,
        dedup: bool = False,
        process: bool = False,
        ageing: float = 1.0,
        name: str | None = None,
        observe: Callable[[Batch], None] | None = None,
    ) -> None:
        check_counts(
            max_size=max_size, min_size=min_size, concurrency=concurrency, max_queue=max_queue
        )
        check_positive(max_wait=max_wait or None, timeout=timeout, max_cost=max_cost, ageing=ageing)
        if min_size > max_size:
            raise ConfigurationError("min_size must be between 1 and max_size.")
        if min_size > 1 and not max_wait:
            raise ConfigurationError("min_size needs max_wait: else a single item waits for ever.")
        if (cost is None) != (max_cost is None):
            raise ConfigurationError("cost and max_cost must be used together.")
        self._caller = caller(fn, concurrency, process)
        if timeout is not None:
            self._caller.ahead = False  # a batch that waits for a thread would use up its time
        if dedup and self._caller.streams:
            raise ConfigurationError("A stream is computed for each caller: omit dedup.")
        self._concurrency = concurrency
        self._max_queue = max_queue
        self._key = key
        self._cost = cost
        self._waiting = Waiting(Budget(max_size, max_cost, padded), ageing)
        self._release = Release(
            self._waiting,
            max_wait=max_wait,
            min_size=min_size,
            simple=key is None and cost is None and not max_wait,
        )
        self._plain = key is None and cost is None and not dedup and max_queue is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._starting = False
        self._under_way = 0
        self._linger: asyncio.TimerHandle | None = None
        self._service = ServiceTime()
        self.stats = Stats()
        """Statistics so far."""
        self._telling = Telling(self._waiting, self.stats, dedup)
        self._computing = Computing(self._caller, timeout, isolate, self.stats, self._telling)
        self._observe = observe if name is None else Stats.exported(name, observe)

    # Handing in

    async def __call__(
        self, item: Item, *, priority: float = 0.0, deadline: float | None = None
    ) -> Result:
        """The result of one item. Cancelling the caller does not affect other items."""
        self._check_outside()
        result: Result = await self._file(item, priority, deadline).future
        return result

    def submit(
        self, item: Item, *, priority: float = 0.0, deadline: float | None = None
    ) -> asyncio.Future[Result]:
        """Submit `item` and get a future of its result.

        A higher `priority` goes first. If its batch has not started after `deadline` seconds it
        fails with DeadlinePassed. Raises BatcherClosed, BatcherFull, TooCostly.
        """
        return self._file(item, priority, deadline).future

    def _file(self, item: Item, priority: float, deadline: float | None) -> Ticket:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        if self._release.closed:
            raise BatcherClosed()
        ticket = Ticket(item, loop.create_future(), loop.time(), priority)
        if deadline is not None:
            ticket.deadline = ticket.since + deadline
        if self._plain or self._admit(ticket):
            if self._waiting.add(ticket):
                self._release.until = None  # what others wait for is not what this one waits for
            # While a batch is running, most calls can stop here.
            if not self._starting and (
                self._under_way < self._concurrency
                or (self._caller.ahead and len(self._waiting) >= self._waiting.budget.size)
            ):
                self._wake()
        if ticket.deadline is not None:
            self._telling.by(ticket.deadline)
        return ticket

    def submit_threadsafe(self, item: Item) -> concurrent.futures.Future[Result]:
        """`submit` from another thread; the batcher must already be bound to a loop (`bind`)."""
        if self._loop is None:
            raise ConfigurationError("This batcher has no event loop yet: call bind() there first.")
        found: concurrent.futures.Future[Result] = concurrent.futures.Future()

        def hand_in() -> None:
            if not found.set_running_or_notify_cancel():
                return
            try:
                self.submit(item).add_done_callback(lambda done: pass_on(done, found))
            except Exception as error:
                found.set_exception(error)

        self._loop.call_soon_threadsafe(hand_in)
        return found

    async def stream(self, item: Item, *, priority: float = 0.0) -> AsyncIterator[Any]:
        """The pieces of one item as `fn`, a generator of lists, yields them, until its first None:
        then its answer has ended. An Ellipsis (...) is no piece."""
        if not self._caller.streams:
            raise ConfigurationError("Only a generator of lists supports stream().")
        self._check_outside()
        pieces: asyncio.Queue[Any] = asyncio.Queue()
        ticket = self._file(item, priority, None)
        ticket.tap = pieces.put_nowait
        end = object()
        ticket.future.add_done_callback(lambda _: pieces.put_nowait(end))
        try:
            while (piece := await pieces.get()) is not end:
                yield piece
            ticket.future.result()
        finally:
            ticket.future.cancel()

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        here = os.getpid()
        if self._loop is not None and not self._loop.is_closed() and self._process == here:
            raise ConfigurationError("This batcher belongs to another event loop.")
        self._loop, self._process = loop, here
        # The callers of an earlier loop, or of the process that this one is a fork of, are gone.
        self._workers.clear()
        self._waiting.forget_all()
        self._telling.forget_equals()
        self._starting, self._under_way, self._release.until = False, 0, None
        self._telling.forget_deadlines()

    def bind(self) -> None:
        """Bind it to the running event loop now instead of on first use."""
        self._bind(asyncio.get_running_loop())

    def _check_outside(self) -> None:
        batch = COMPUTED.get()
        if batch is not None and not batch.over and batch.batcher is self and self._saturated():
            raise ConfigurationError("A batched function cannot wait for its own batcher.")

    def _admit(self, ticket: Ticket) -> bool:
        """Check a new ticket; false if it joined an equal unfinished one."""
        if self._key is not None:
            ticket.lane = self._key(ticket.item)
        if self._cost is not None and self._waiting.budget.cost is not None:
            ticket.cost = float(self._cost(ticket.item))
            if ticket.cost > self._waiting.budget.cost:
                raise TooCostly()
        if self._telling.joins(ticket):
            return False
        if self._max_queue is not None and len(self._waiting) >= self._max_queue:
            self._waiting.drop_given_up()
            if len(self._waiting) >= self._max_queue:
                self.stats.refused += 1
                self._telling.forget(ticket)
                full = BatcherFull()
                size = self._waiting.budget.size
                full.retry_after = self._service.until(len(self._waiting), size, self._concurrency)
                raise full
        return True

    # Letting go

    @contextmanager
    def expect(self) -> Iterator[None]:
        """Within the block another item is expected, so waiting items wait `max_wait` for it."""
        self._release.expected += 1
        try:
            yield
        finally:
            self._release.expected -= 1
            if self._loop is not None:
                self._end_linger()

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Within the block no batch starts until `count` items wait: for tests."""
        self._release.held = count
        try:
            yield
        finally:
            self._release.held = 0
            if self._loop is not None:
                self._wake()

    def _wake(self) -> None:
        """Start a worker if a batch is due and `concurrency` allows it."""
        if self._starting or not self._release.may_start(self._saturated()):
            return
        if len(self._workers) >= self._concurrency + self._caller.ahead:
            return
        assert self._loop is not None
        self._starting = True
        # A separate context: the first caller's variables must not leak into the batches.
        task = self._loop.create_task(self._work(), context=contextvars.Context())
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    def _saturated(self) -> bool:
        return self._under_way >= self._concurrency

    def _next(self) -> Released | None:
        """The batch that starts now; if some wait for more items, a timer is set."""
        assert self._loop is not None
        released = self._release.next(self._loop.time(), self._saturated())
        if released is None and self._release.until is not None:
            if self._linger is not None:
                self._linger.cancel()
            self._linger = self._loop.call_at(self._release.until, self._end_linger)
        return released

    def _end_linger(self) -> None:
        self._release.until = None
        self._wake()

    # Computing

    async def _work(self) -> None:
        self._starting = False
        task = asyncio.current_task()
        assert task is not None
        try:
            while released := self._next():
                if self._waiting:
                    self._wake()
                self._under_way += 1
                batch = Computed(self)
                COMPUTED.set(batch)
                try:
                    await self._answer(*released)
                finally:
                    self._under_way -= 1
                    batch.over = True
                del released
                if task.cancelling():  # the loop is about to end
                    self._telling.fail_waiting(BatcherClosed())
                    return
        finally:
            self._workers.discard(task)  # before its callers continue and submit more

    async def _answer(self, batch: list[Ticket], reason: Reason) -> None:
        assert self._loop is not None
        if not batch:
            return
        began = self._loop.time()
        try:
            results = await self._computing.results(batch)
        except BaseException as error:
            self.stats.failed += 1
            closing = isinstance(error, asyncio.CancelledError) and self._release.closed
            self._telling.fail_all(batch, BatcherClosed() if closing else error)
        else:
            self._telling.tell(batch, results)
        took = self._loop.time() - began
        if self._max_queue is not None:
            self._service.learn(len(batch), took)
        self.stats.count(len(batch), reason)
        self.stats.dropped = self._waiting.dropped
        if self._observe is not None:
            try:
                self._observe(Batch(len(batch), began - batch[0].since, took, reason))
            except Exception:  # what waits must not wait for ever
                log.exception("the observer of a batcher failed")

    # The end

    async def aclose(self, *, drain: bool = True, patience: float = CLOSING) -> None:
        """Accept no more items and return when every accepted item is answered.

        With `drain` they are computed, for `patience` seconds; the remaining items (without
        `drain` all of them) fail with BatcherClosed.
        """
        self._release.closed = True
        self._release.held, self._release.until = 0, None
        if self._linger is not None:
            self._linger.cancel()
        self._telling.forget_deadlines()
        if self._loop is None:
            return
        until = self._loop.time() + patience
        while drain and (self._waiting or self._workers) and self._loop.time() < until:
            self._wake()
            await asyncio.wait({*self._workers}, timeout=max(0.0, until - self._loop.time()))
        self._telling.fail_waiting(BatcherClosed())
        for task in list(self._workers):
            task.cancel()
        if self._workers:
            await asyncio.wait({*self._workers}, timeout=1.0)
        self._caller.close()

    async def __aenter__(self) -> Batcher[Item, Result]:
        self.bind()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
