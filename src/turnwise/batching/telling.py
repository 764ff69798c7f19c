"""Telling: what each caller hears of its item, and when it is too late to compute it.

Every future is done exactly once: with its own item's result, with the exception returned in its
place, or with an error of its own that has the exception of the whole batch as its cause.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Hashable, Sequence
from typing import Any

from turnwise.batching.errors import DeadlinePassed, own
from turnwise.batching.measures import Stats
from turnwise.batching.waiting import Ticket, Waiting


class Telling:
    """Those who wait for tickets. With `dedup`, who asks for an equal item waits for the first."""

    def __init__(self, waiting: Waiting, stats: Stats, dedup: bool) -> None:
        self._waiting = waiting
        self._stats = stats
        self._first: dict[Hashable, Ticket] | None = {} if dedup else None
        self._deadline: asyncio.TimerHandle | None = None

    # Equal items

    def joins(self, ticket: Ticket) -> bool:
        """Whether the ticket waits for an equal one that is under way; else it is the first."""
        if self._first is None:
            return False
        same = self._first.get((ticket.lane, ticket.item))
        if same is not None and not same.given_up:
            same.others = [*(same.others or ()), ticket.future]
            return True
        self._first[ticket.lane, ticket.item] = ticket
        return False

    def forget(self, ticket: Ticket) -> None:
        """The next equal item is computed anew."""
        if self._first is not None and self._first.get((ticket.lane, ticket.item)) is ticket:
            del self._first[ticket.lane, ticket.item]

    # Answers

    def tell(self, batch: list[Ticket], results: Sequence[Any]) -> None:
        """Each its own result, or the exception that is in its place."""
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
        """Everyone who waits for the ticket gets the error, each one of its own if `shared`."""
        self.forget(ticket)
        for future in (ticket.future, *(ticket.others or ())):
            if not future.done():
                future.set_exception(own(error, shared=shared))

    def fail_all(self, batch: list[Ticket], error: BaseException) -> None:
        """The whole batch has failed with this."""
        for ticket in batch:
            self.fail(ticket, error, shared=True)

    def fail_waiting(self, error: BaseException) -> None:
        """What waits will not be computed."""
        for ticket in list(self._waiting):
            self.fail(ticket, error, shared=False)
        self._waiting.drop_given_up()

    # Deadlines

    def by(self, deadline: float) -> None:
        """Something that waits must have begun by then, in the loop's time."""
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
        """None matters any more: the batcher is closed, or its loop was."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def pass_on(done: asyncio.Future[Any], to: concurrent.futures.Future[Any]) -> None:
    """Tell a thread what its item has come to."""
    if done.cancelled():
        to.set_exception(concurrent.futures.CancelledError())
    elif (error := done.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())
