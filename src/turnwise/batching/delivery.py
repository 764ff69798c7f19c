"""Telling: delivers each item's result to its callers, and fails items past their deadline.

Every future is resolved exactly once: with its item's result, with the exception returned for its
item, or with a separate error whose cause is the exception of the whole batch.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Hashable, Sequence
from typing import Any

from turnwise.batching.errors import DeadlinePassed, own
from turnwise.batching.queue import Ticket, Waiting
from turnwise.batching.stats import Stats


class Telling:
    """The callers that wait for tickets. With `dedup`, equal items wait for the first one."""

    def __init__(self, waiting: Waiting, stats: Stats, dedup: bool) -> None:
        self._waiting = waiting
        self._stats = stats
        self._first: dict[Hashable, Ticket] | None = {} if dedup else None
        self._deadline: asyncio.TimerHandle | None = None

    # Equal items

    def joins(self, ticket: Ticket) -> bool:
        """Whether the ticket waits for an equal unfinished one; else it is the first."""
        if self._first is None:
            return False
        same = self._first.get((ticket.lane, ticket.item))
        if same is not None and not same.given_up:
            same.others = [*(same.others or ()), ticket.future]
            return True
        self._first[ticket.lane, ticket.item] = ticket
        return False

    def forget(self, ticket: Ticket) -> None:
        """Compute the next equal item again."""
        if self._first is not None and self._first.get((ticket.lane, ticket.item)) is ticket:
            del self._first[ticket.lane, ticket.item]

    def forget_equals(self) -> None:
        """Every item is computed anew."""
        if self._first is not None:
            self._first.clear()

    # Answers

    def tell(self, batch: list[Ticket], results: Sequence[Any]) -> None:
        """Give each ticket its own result or exception."""
        for ticket, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                self.fail(ticket, result, shared=ticket.others is not None)
                continue
            if not ticket.future.done():
                ticket.future.set_result(result)
            if self._first is not None:
                self._tell_others(ticket, result)

    def _tell_others(self, ticket: Ticket, result: Any) -> None:
        self.forget(ticket)
        for future in ticket.others or ():
            if not future.done():
                future.set_result(result)

    def fail(self, ticket: Ticket, error: BaseException, *, shared: bool) -> None:
        """Give all callers of the ticket the error; if `shared`, each gets its own copy."""
        self.forget(ticket)
        for future in (ticket.future, *(ticket.others or ())):
            if not future.done():
                future.set_exception(own(error, shared=shared))

    def fail_all(self, batch: list[Ticket], error: BaseException) -> None:
        """The whole batch has failed with this error."""
        for ticket in batch:
            self.fail(ticket, error, shared=True)

    def fail_waiting(self, error: BaseException) -> None:
        """The waiting items will not be computed."""
        for ticket in list(self._waiting):
            self.fail(ticket, error, shared=False)
        self._waiting.drop_given_up()

    # Deadlines

    def by(self, deadline: float) -> None:
        """A waiting item must have started by then, in the loop's time."""
        if self._deadline is not None:
            if self._deadline.when() <= deadline:
                return
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._deadline = None
        now = asyncio.get_running_loop().time()
        for ticket in self._waiting:
            if ticket.deadline is None or ticket.given_up:
                continue
            if ticket.deadline <= now:
                self._stats.expired += 1
                self.fail(ticket, DeadlinePassed(), shared=False)
            else:
                self.by(ticket.deadline)

    def forget_deadlines(self) -> None:
        """Cancel all deadlines: the batcher or its loop is closed."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def pass_on(done: asyncio.Future[Any], to: concurrent.futures.Future[Any]) -> None:
    """Pass an item's result to the thread that waits for it."""
    if done.cancelled():
        to.set_exception(concurrent.futures.CancelledError())
    elif (error := done.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())
