"""Telling: delivers each item's result to its callers, and fails items past their deadline.

Every future is resolved exactly once: with its item's result, with the exception returned for its
item, or with a separate error whose cause is the exception of the whole batch.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
from collections.abc import Hashable, Sequence
from typing import Any

from turnwise.batching.errors import DeadlinePassed, own
from turnwise.batching.queue import Ticket, Waiting
from turnwise.batching.stats import Stats
from turnwise.errors import ConfigurationError


class Telling:
    """The callers that wait for tickets. With `dedup`, equal items wait for the first one."""

    def __init__(self, waiting: Waiting, stats: Stats, dedup: bool) -> None:
        self._waiting = waiting
        self._stats = stats
        self._first: dict[Hashable, Ticket] | None = {} if dedup else None
        self._deadline: asyncio.TimerHandle | None = None

    # Equal items

    def joins(self, ticket: Ticket) -> bool:
        """Whether the ticket waits for an equal unfinished one; else it is the first. Raises
        ConfigurationError for an item that cannot be compared."""
        if self._first is None:
            return False
        name = ticket.lane, _typed(ticket.item)
        try:
            same = self._first.get(name)
        except TypeError:
            kind = type(ticket.item).__name__
            raise ConfigurationError(f"dedup needs items that are hashable, not {kind}.") from None
        first = ticket if same is None or same.given_up else same
        ticket.future.add_done_callback(lambda _: self._left(first))
        if first is same:
            same.others = [*(same.others or ()), ticket]
            self._waiting.lift(same, ticket.priority)
            return True
        self._first[name] = ticket
        return False

    def _left(self, ticket: Ticket) -> None:
        """A caller has its result, or waits no longer."""
        if ticket.given_up:
            self.forget(ticket)

    def forget(self, ticket: Ticket) -> None:
        """Compute the next equal item again."""
        if self._first is not None:
            name = ticket.lane, _typed(ticket.item)
            if self._first.get(name) is ticket:
                del self._first[name]

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
        """Those that joined get the result as their own: what one changes no other sees."""
        self.forget(ticket)
        for other in ticket.others or ():
            if not other.future.done():
                other.future.set_result(_own_copy(result))

    def fail(self, ticket: Ticket, error: BaseException, *, shared: bool) -> None:
        """Give all callers of the ticket the error; if `shared`, each gets its own copy."""
        self.forget(ticket)
        for one in ticket.callers():
            if not one.future.done():
                one.future.set_exception(own(error, shared=shared))

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
        for ticket in list(self._waiting):
            for one in ticket.callers():  # each has its own deadline, or none
                if one.deadline is None or one.future.done():
                    continue
                if one.deadline <= now:
                    self._stats.expired += 1
                    one.future.set_exception(DeadlinePassed())
                else:
                    self.by(one.deadline)

    def forget_deadlines(self) -> None:
        """Cancel all deadlines: the batcher or its loop is closed."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _typed(item: Any) -> Any:
    """What an item is compared by: 1, True and 1.0 are equal, and are not the same item."""
    if type(item) is tuple:
        return tuple(map(_typed, item))
    return type(item), item


def _own_copy(result: Any) -> Any:
    """A copy, if there can be one."""
    try:
        return copy.deepcopy(result)
    except Exception:
        return result


def pass_on(done: asyncio.Future[Any], to: concurrent.futures.Future[Any]) -> None:
    """Pass an item's result to the thread that waits for it."""
    if done.cancelled():
        to.set_exception(concurrent.futures.CancelledError())
    elif (error := done.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())
