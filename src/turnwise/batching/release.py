"""Decides which batch starts now: full ones at once, others by `max_wait` and `min_size`.

It has neither a clock nor a timer: the time is an argument, and `until` says when to ask again.
"""

from __future__ import annotations

from typing import NamedTuple

from turnwise.batching.queue import Lane, Ticket, Waiting
from turnwise.batching.stats import Reason


class Released(NamedTuple):
    """A batch that starts now, and the reason."""

    tickets: list[Ticket]
    reason: Reason


class Release:
    """Takes batches from `waiting`; for the options see Batcher.

    `expected`: more items are announced. `held`: the number of items without which no batch
    starts. `closed`: waiting for more items is pointless. `until`: nothing starts before this time,
    unless enough items arrive; None if no items wait for more.
    """

    def __init__(self, waiting: Waiting, *, max_wait: float, min_size: int, simple: bool) -> None:
        self._waiting = waiting
        self._max_wait = max_wait
        self._min_size = min_size
        self._simple = simple
        self.expected = 0
        self.held = 0
        self.closed = False
        self.until: float | None = None

    def may_start(self, saturated: bool) -> bool:
        """Whether `next` may return a batch. `saturated`: the maximum number of batches runs."""
        waiting, size = len(self._waiting), self._waiting.budget.size
        if not waiting or waiting < self.held or (saturated and waiting < size):
            return False
        return self.until is None or waiting >= (self._min_size if self._min_size > 1 else size)

    def next(self, now: float, saturated: bool) -> Released | None:
        """The batch that starts now, if any; only a full one if `saturated`."""
        if len(self._waiting) < self.held:
            return None
        if self._simple and not saturated:
            return self._whatever_waits(now)
        soonest: float | None = None
        for name, lane in self._waiting.lanes():
            full = self._waiting.is_full(lane)
            if not full and saturated:
                continue
            reason: Reason = "full" if full else "idle"
            if not full and self._max_wait and not self.closed:
                until = lane.oldest() + self._max_wait
                if now < until and self._waits(lane):
                    soonest = until if soonest is None else min(soonest, until)
                    continue
                enough: Reason = "enough" if self._min_size > 1 else "idle"
                reason = "linger" if now >= until else enough
            if self.closed:
                reason = "drain"
            return Released(self._waiting.take(name, lane, now), reason)
        if soonest is not None:
            self.until = soonest
        return None

    def _waits(self, lane: Lane) -> bool:
        """Whether the items of a lane should wait for more."""
        if self._min_size > 1:
            return lane.wanted() < self._min_size
        return len(lane) > 1 or self.expected > 0

    def _whatever_waits(self, now: float) -> Released | None:
        """Fast path for the usual case: one lane, no budget, nothing to wait for."""
        batch = self._waiting.take_all_in_one(now)
        if not batch:
            return None
        if self.closed:
            return Released(batch, "drain")
        return Released(batch, "full" if len(batch) == self._waiting.budget.size else "idle")
